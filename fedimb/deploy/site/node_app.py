"""The client's side of a run at a hospital node: the simulated clients' runtime on registered data, under a study plan.

Flower starts a process per message, so everything a run needs again lies in the node's folder:

```
state/runs/<run>/run.json      plan, configuration, which client of how many
state/runs/<run>/clients/      client state, as in a simulation
state/flower/<Flower's run>    which of fedimb's runs that is; a resumed run has another number in Flower
```
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedimb import registry
from fedimb.clientapp.context import Site
from fedimb.clientapp.runtime import ClientRuntime
from fedimb.clientapp.state import StateStore
from fedimb.config.load import config_sha
from fedimb.config.parts import contracts_of
from fedimb.contracts import platform as names
from fedimb.data.scaling import Scaling, column_sums
from fedimb.data.split import split_fraction
from fedimb.data.store import Store
from fedimb.data.views import ClientData
from fedimb.deploy.files import write_private
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import NOT_APPROVED, WAITING, Shareable
from fedimb.deploy.registered_data.data_version import DataVersion
from fedimb.deploy.registered_data.datasets import find
from fedimb.deploy.registered_data.pins import pin, pinned
from fedimb.deploy.site.approvals import approved, require
from fedimb.deploy.site.egress_filter import Terms
from fedimb.deploy.site.inbox import waiting_line
from fedimb.deploy.site.pairwise_masks import NodeSecrets, public_key
from fedimb.deploy.site.sharing import Patients
from fedimb.deploy.site.site_overrides import of_the_site, site_folder, waits
from fedimb.deploy.study_plan.outbound_records import message_types
from fedimb.deploy.study_plan.plan import StudyPlan, site_config
from fedimb.errors import ConfigError, FedimbError
from fedimb.records import array_record, arrays_of
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, numpy_rng

FORMAT = 1
"""Of what lies in state/: another release that reads it otherwise has another number, and refuses this."""


@dataclass(frozen=True)
class NodeRun:
    """One run at this node.

    Attributes:
        name: fedimb's name of the run, the same at every site.
        plan, config: approved, and covered by it; with what the site decides itself (`of_the_site`).
        client, clients: this site's id and how many there are.
        data: the pinned version.
    """

    home: NodeHome
    name: str
    plan: StudyPlan
    config: RunConfig
    client: int
    clients: int
    data: DataVersion

    def store(self) -> Store:
        """The pinned rows, all of one domain: this site's id among those that take part, whatever devices the table
        names, since no two sites' lists of devices are one list.
        """
        store = self.data.open_store()
        names_of = tuple(f"site {client}" for client in range(self.clients))
        return replace(store, sites=np.full(len(store), self.client), site_names=names_of)

    def parts(self, store: Store) -> tuple[np.ndarray, np.ndarray]:
        """(train, validation) rows, as `fedimb.data.prepare` cuts this client's rows in a simulation."""
        rows = np.arange(len(store))
        rng = numpy_rng(self.config.seed, Stream.VALIDATION, 0, self.client)
        share = float(self.config.data.get("validation", 0.0))
        return split_fraction(rows, np.asarray(store.y), share, rng, store.patients)

    @property
    def short(self) -> str:
        """What worklists and batches of samples call the run."""
        return f"s{self.config.seed}-{config_sha(self.config)[:8]}"

    def patients(self) -> Patients:
        """Registered patients, by class in the plan's order."""
        facts = self.data.facts
        per_class = tuple(int(facts["patients_per_class"].get(name, 0)) for name in self.plan.classes)
        return Patients(int(facts["patients"] if facts["patients"] is not None else facts["rows"]), per_class)


def terms_of(home: NodeHome, message: Message, context: Context) -> Terms:
    """On what terms this message is answered. Raises Shareable where the site has not agreed."""
    run = join_run(home, message, context) if _is_join(message) else load_run(home, context)
    return Terms(contracts_of(run.config), message_types(run.config), run.name, run.patients())


def _is_join(message: Message) -> bool:
    return message.metadata.message_type == f"query.{names.JOIN_SITE}"


def join_run(home: NodeHome, message: Message, context: Context) -> NodeRun:
    """Take part in a run, for the first time or again: plan, data and parts are checked before anything is computed.

    Raises:
        Shareable: the plan is not approved, or the site's data do not suit it.
        FedimbError: the data changed since they were registered, or cannot be read.
    """
    asked: dict[str, Any] = dict(message.content.config_records[names.RUN])
    plan, config = require(home, str(asked["plan"]), str(asked["cfg-json"]))
    name, client, clients = str(asked["run"]), int(asked["client"]), int(asked["clients"])
    try:
        version = find(home, plan.tags)
    except ConfigError as error:
        raise Shareable(NOT_APPROVED, str(error)) from None
    _suits(home, plan, version)
    version.verify(full=True)
    run = NodeRun(home, name, plan, of_the_site(home, config), client, clients, version)
    version = pin(home, name, version, names=(run.short,))
    _check_parts(home, run.config, replace(run, data=version).store())
    kept: dict[str, Any] = {"format": FORMAT, "plan": plan.sha, "config": str(asked["cfg-json"])}
    kept |= {"client": client, "clients": clients}
    write_private(home.folder("state", "runs", name) / "run.json", json.dumps(kept).encode())
    write_private(home.folder("state", "flower") / str(context.run_id), name.encode())
    return replace(run, data=version)


def _suits(home: NodeHome, plan: StudyPlan, version: DataVersion) -> None:
    schema, able = version.facts["schema"], version.facts["recordable"]
    if list(schema["classes"]) != list(plan.classes) or list(schema["shape"]) != list(plan.input_shape):
        raise Shareable(
            NOT_APPROVED,
            f"{home.site}: data set '{version.name}' has classes {', '.join(schema['classes'])} and rows of "
            f"{schema['shape']}; the plan says {', '.join(plan.classes)} and {plan.input_shape}",
        )
    if missing := [name for name in plan.classes if name not in able]:
        raise Shareable(
            NOT_APPROVED, f"{home.site}: the labels of '{version.name}' cannot express class '{missing[0]}'"
        )


def _check_parts(home: NodeHome, config: RunConfig, store: Store) -> None:
    if config.prior.provenance == "dp_sum" and config.prior.clip is not None and store.patients is None:
        text = f"prior.clip={config.prior.clip} protects patients, and the data set names none: register it with a "
        raise Shareable(NOT_APPROVED, f"{home.site}: {text}patient column, or make a plan with prior.clip=null")
    site = Site(store.task, store.class_names, store)
    for name, args in config.strategy.items():
        registry.build("client", name, **registry.accepted("client", name, args)).check(site)


def load_run(home: NodeHome, context: Context) -> NodeRun:
    """The run a message belongs to, still approved and on unchanged data.

    Raises:
        Shareable: this node never joined the run, or the plan's approval no longer holds.
        DataError: the data changed, or records were withdrawn and the site does not go on.
    """
    try:
        name = home.file("state", "flower", str(context.run_id)).read_text()
        kept = json.loads(home.file("state", "runs", name, "run.json").read_text())
    except (OSError, ValueError):
        raise Shareable(NOT_APPROVED, f"{home.site} has not joined this run: start it with fedimb deploy run") from None
    if kept.get("format") != FORMAT:
        text = f"{home.site} keeps this run in the form of another release of fedimb: start a new run"
        raise Shareable(NOT_APPROVED, text)
    plan = approved(home, str(kept["plan"]))
    if plan is None:
        raise Shareable(NOT_APPROVED, f"{home.site}: plan {str(kept['plan'])[:8]} is no longer approved")
    version = pinned(home, name)
    version.verify(full=False)
    config = of_the_site(home, site_config(str(kept["config"])))
    return NodeRun(home, name, plan, config, int(kept["client"]), int(kept["clients"]), version)


def answer(home: NodeHome, message: Message, context: Context) -> Message:
    """The site's reply to any message of a run it takes part in.

    Raises:
        Shareable: the reply says that a person must act first; in words for the coordinator, for whom.
    """
    run = load_run(home, context)
    if _is_join(message):
        return Message(_joined(run), reply_to=message)
    with site_folder(home):
        reply = runtime(run, message).handle(message, run.client)
    # The run ends here and asks the same again when it is resumed; what the client did meanwhile is kept.
    if not reply.has_error() and waits(reply.content) and (line := waiting_line(home, run.short)):
        raise Shareable(WAITING, f"waiting: {line}")
    return reply


def _joined(run: NodeRun) -> RecordDict:
    store = run.store()
    train, validation = run.parts(store)
    about = {"site": run.home.site, "rows": len(train), "validation": len(validation)}
    about |= {"version": run.data.version, "scale": float(store.scale), "key": public_key(run.home, run.name)}
    reply = RecordDict({names.SITE: ConfigRecord(about)})  # type: ignore[arg-type]
    if store.scaled is not None:
        sums = column_sums(np.asarray(store.x[train]))
        reply[names.SUMS] = array_record({"sums": sums, "scaled": np.asarray(store.scaled, bool)})
    return reply


def runtime(run: NodeRun, message: Message) -> ClientRuntime:
    """The simulated clients' runtime on this site's rows, scaled as the message says."""
    secrets = NodeSecrets(run.home, run.name, run.client, run.clients, message)
    scaling = None
    if names.SCALING in message.content:
        sent = arrays_of(message.content, names.SCALING)
        scaling = Scaling(sent["mean"], sent["deviation"])
        del message.content[names.SCALING]
    store = run.store()
    train, validation = run.parts(store)
    states = StateStore(run.home.folder("state", "runs", run.name) / "clients")

    def data_of(client: int) -> ClientData:
        if client != run.client:
            raise FedimbError(f"this node is client {run.client}, not {client}")
        return ClientData(store, train, validation, scaling)

    return ClientRuntime(run.config, data_of, states, len(run.plan.classes), tuple(run.plan.input_shape), secrets)


@lru_cache(maxsize=1)
def local_node(root: str) -> NodeHome:
    """This process's node."""
    return NodeHome.open(Path(root))
