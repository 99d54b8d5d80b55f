"""The Flower entry point of every client, on every engine: one ClientApp, a thin shell around `ClientRuntime`.

The simulation engines and a hospital node call the same object; only where its data come from differs.
"""

import os
from functools import lru_cache, partial
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedimb import registry
from fedimb.config.load import from_json
from fedimb.contracts.base import Contract
from fedimb.contracts.platform import CLIENT, JOIN, RUN
from fedimb.data.federation import Federation
from fedimb.data.views import ClientData
from fedimb.deploy.home import NODE_HOME
from fedimb.engine.lanes import Ahead
from fedimb.errors import FedimbError
from fedimb.privacy.door import exit_door
from fedimb.run.client import ClientRuntime
from fedimb.run.context import client_id
from fedimb.run.state import StateStore


@lru_cache(maxsize=4)  # a worker serves the runs of a sweep one after another
def _runtime(run_dir: str, config_json: str) -> ClientRuntime:
    config = from_json(config_json)
    federation = Federation.load(Path(run_dir))

    def data_of(client: int) -> ClientData:
        return federation.client(client)

    return ClientRuntime(
        config, data_of, StateStore(Path(run_dir) / "clients"), federation.n_classes, federation.input_shape
    )


def runtime(context: Context) -> ClientRuntime:
    """The runtime of the run a message belongs to, built once per process."""
    if "run-dir" in context.node_config:
        return _runtime(str(context.node_config["run-dir"]), str(context.run_config["cfg-json"]))
    if RUN not in context.state:
        raise FedimbError("this node belongs to no run yet: give it a run-dir, or let the server send query.join first")
    run = context.state.config_records[RUN]
    return _runtime(str(run["run-dir"]), str(run["cfg-json"]))


def ahead_of(context: Context) -> Ahead | None:
    """What a simulated run's clients can have done for many of them at once; None where each trains by itself.

    Args:
        context: of any client of the run.
    """
    answering = runtime(context)
    if answering.config.engine.get("trainer") != "stacked":
        return None
    return Ahead(answering.ahead_clients(), answering.work_ahead)


def _contracts(context: Context) -> list[Contract]:
    return runtime(context).contracts


def _door(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    if root := os.environ.get(NODE_HOME):
        from fedimb.deploy.node_app import here, terms_of
        from fedimb.deploy.node_door import node_door

        home = here(root)
        return node_door(home, partial(terms_of, home), message, context, call_next)
    return exit_door(_contracts, message, context, call_next)


app = ClientApp(mods=[_door])


def _answer(message: Message, context: Context) -> Message:
    if root := os.environ.get(NODE_HOME):
        from fedimb.deploy.node_app import answer, here

        return answer(here(root), message, context)
    return runtime(context).answer(message, client_id(context))


def _join(message: Message, context: Context) -> Message:
    """A node that Flower simulates is told by its first message where the run is, and keeps that in its context."""
    context.state[RUN] = message.content.config_records[RUN]
    return Message(RecordDict({CLIENT: ConfigRecord({"client": client_id(context)})}), reply_to=message)


app.train()(_answer)
app.query(JOIN)(_join)
_queries: set[str] = {JOIN}


def ready_app() -> ClientApp:
    """The ClientApp, answering the queries of every contract known by now (a notebook may register one later)."""
    for name in registry.names("contract"):
        for query in registry.build("contract", name).queries:
            if query not in _queries:
                _queries.add(query)
                app.query(query)(_answer)
    return app


ready_app()
