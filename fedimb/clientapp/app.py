"""The ClientApp of simulated clients, on every engine: a thin wrapper around `ClientRuntime`.

A hospital node has its own app (`fedimb.deploy.site.app`) around the same runtime; only where the data come from and
what may leave the site differ.
"""

from functools import lru_cache
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedimb import registry
from fedimb.clientapp.context import client_id
from fedimb.clientapp.kinds import RuntimeByKind, runtime_of
from fedimb.clientapp.runtime import ClientRuntime
from fedimb.clientapp.state import StateStore
from fedimb.config.load import from_json
from fedimb.contracts.base import Contract
from fedimb.contracts.platform import CLIENT, JOIN, RUN
from fedimb.data.views import ClientData
from fedimb.data.virtual_federation import load_federation
from fedimb.errors import FedimbError
from fedimb.privacy.egress_filter import egress_filter


@lru_cache(maxsize=4)  # in a sweep, a worker serves several runs one after another
def _runtime(run_dir: str, config_json: str, _made: tuple[int, int]) -> ClientRuntime | RuntimeByKind:
    config = from_json(config_json)
    federation = load_federation(Path(run_dir))

    def data_of(client: int) -> ClientData:
        return federation.client(client)

    return runtime_of(
        config, data_of, StateStore(Path(run_dir) / "clients"), federation.n_classes, federation.input_shape
    )


def _runtime_of(run_dir: object, config_json: object) -> ClientRuntime | RuntimeByKind:
    # A folder that was deleted or moved away may be followed by another run of that name, with other data and code.
    made = (Path(str(run_dir)) / "partition.npz").stat()
    return _runtime(str(run_dir), str(config_json), (made.st_ino, made.st_mtime_ns))


def runtime(context: Context) -> ClientRuntime | RuntimeByKind:
    """The runtime of the run a message belongs to, built once per process."""
    if "run-dir" in context.node_config:
        return _runtime_of(context.node_config["run-dir"], context.run_config["cfg-json"])
    if RUN not in context.state:
        raise FedimbError(
            "this node does not belong to a run yet: give it a run-dir, or let the server send query.join first"
        )
    run = context.state.config_records[RUN]
    return _runtime_of(run["run-dir"], run["cfg-json"])


def _contracts(context: Context) -> list[Contract]:
    return runtime(context).contracts


def _filter(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    return egress_filter(_contracts, message, context, call_next)


def _handle(message: Message, context: Context) -> Message:
    return runtime(context).handle(message, client_id(context))


def _join(message: Message, context: Context) -> Message:
    """Keep in the context of a node that Flower simulates where the run is, which its first message says."""
    context.state[RUN] = message.content.config_records[RUN]
    return Message(RecordDict({CLIENT: ConfigRecord({"client": client_id(context)})}), reply_to=message)


app = ClientApp(mods=[_filter])
app.train()(_handle)
app.query(JOIN)(_join)
_queries: set[str] = {JOIN}


def declared_queries() -> set[str]:
    """Names of the queries of every contract registered so far."""
    return {query for name in registry.names("contract") for query in registry.build("contract", name).queries}


def ready_app() -> ClientApp:
    """The ClientApp, answering the queries of every contract registered so far (a notebook may register one later)."""
    for query in sorted(declared_queries() - _queries):
        _queries.add(query)
        app.query(query)(_handle)
    return app


ready_app()
