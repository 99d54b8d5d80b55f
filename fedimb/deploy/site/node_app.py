"""The client side of a run at a hospital node: the simulated clients' runtime on registered data, under a study plan.

Flower starts a process per message, so everything a run needs later is stored in the node's folder:

```
state/runs/<run>/run.json      plan, configuration, client id and number of clients
state/runs/<run>/clients/      client state, as in a simulation
state/flower/<Flower's run>    name of the run in fedimb; a resumed run has another number in Flower
```
"""

import json
import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedimb import __version__, registry
from fedimb.clientapp.context import Site
from fedimb.clientapp.kinds import RuntimeByKind, runtime_of
from fedimb.clientapp.runtime import ClientRuntime
from fedimb.clientapp.state import StateStore
from fedimb.config.load import config_sha
from fedimb.config.parts import check_client_parts, contracts_of
from fedimb.config.site_models import kinds_of
from fedimb.contracts import platform as names
from fedimb.data.groups import SplitConfig, row_groups
from fedimb.data.label_spaces import ClientLabels, labels_of_site, parse_labels
from fedimb.data.scaling import Scaling, sums_of_rows
from fedimb.data.split import split_fraction
from fedimb.data.store import Store
from fedimb.data.subgroups import attribute_columns, parse_subgroups, subgroups_of
from fedimb.data.views import ClientData
from fedimb.deploy.files import write_private
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import NOT_APPROVED, WAITING, Shareable
from fedimb.deploy.input_names import input_names
from fedimb.deploy.registered_data.data_version import DataVersion
from fedimb.deploy.registered_data.datasets import find_data_set
from fedimb.deploy.registered_data.pins import pin_run, pinned_version
from fedimb.deploy.site.account import Account
from fedimb.deploy.site.approvals import approved_plan, load_plan, require_approval
from fedimb.deploy.site.data_checks import plan_checks
from fedimb.deploy.site.egress_filter import Terms
from fedimb.deploy.site.inbox import waiting_line
from fedimb.deploy.site.masked_opening import SumOpening
from fedimb.deploy.site.membership import join_mismatch
from fedimb.deploy.site.orders import Received
from fedimb.deploy.site.pairwise_masks import NodeSecrets, signed_run_key
from fedimb.deploy.site.region import RegionRun, join_region
from fedimb.deploy.site.sharing import Patients
from fedimb.deploy.site.site_overrides import apply_site_overrides, needs_person, site_folder
from fedimb.deploy.study_plan.limits import beyond, column_ranges
from fedimb.deploy.study_plan.outbound_records import OPENING, message_types
from fedimb.deploy.study_plan.plan import StudyPlan, read_plan, site_config
from fedimb.errors import ConfigError, FedimbError
from fedimb.plain import JsonObject
from fedimb.records import array_record, arrays_of
from fedimb.rundir.code import code_of, words_of
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, numpy_rng

log = logging.getLogger("fedimb")
FORMAT = 1
"""Version of the format of state/. A release with another format has another number and refuses this one."""


@dataclass(frozen=True)
class NodeRun:
    """One run at this node.

    Attributes:
        home: the node's folder.
        name: fedimb's name of the run, the same at all sites.
        plan: the approved study plan.
        config: the run's configuration, with the site's overrides (`apply_site_overrides`).
        client, clients: this site's client id, and the number of clients.
        data: the pinned version.
        asked: the run's configuration as the coordinator sent it.
    """

    home: NodeHome
    name: str
    plan: StudyPlan
    config: RunConfig
    client: int
    clients: int
    data: DataVersion
    asked: RunConfig

    def account(self) -> Account:
        """This run in the site's ledger."""
        return Account(self.home, self.name, self.plan, self.asked, self.client, self.clients, self.data)

    def store(self) -> Store:
        """The pinned rows, all with this site as their domain.

        Devices that the table names are ignored, because sites do not share one list of devices.
        """
        store = self.data.open_store(attribute_columns(parse_subgroups(self.config.data.get("subgroups"))))
        names_of = tuple(f"site {client}" for client in range(self.clients))
        return replace(store, sites=np.full(len(store), self.client), site_names=names_of)

    def split_rows(self, store: Store) -> tuple[np.ndarray, np.ndarray]:
        """(train, validation) rows, split as `fedimb.data.prepare` splits this client's rows in a simulation.

        Without rows of classes that the site does not annotate, unless coarse labels are kept.
        """
        rows, y, labels = np.arange(len(store)), np.asarray(store.y), self.labels
        if labels is not None and self.coarse:
            y = labels.seen[y]
        elif labels is not None:
            rows = rows[labels.annotated[y]]
        rng = numpy_rng(self.config.seed, Stream.VALIDATION, 0, self.client)
        share = float(self.config.data.get("validation", 0.0))
        groups = row_groups(store, SplitConfig.parse(self.config.data.get("split")).group)
        return split_fraction(rows, y, share, rng, None if groups is None else groups.of_row)

    @property
    def labels(self) -> ClientLabels | None:
        """What this site's labels say, as the plan declares; None: it annotates every class."""
        sites = [site.name for site in self.plan.sites]
        return labels_of_site(parse_labels(self.config.data), sites, self.client, self.plan.classes)

    @property
    def coarse(self) -> bool:
        """Whether rows of classes that the site does not annotate stay, with coarse labels."""
        return parse_labels(self.config.data).unknown == "coarse"

    @property
    def short_name(self) -> str:
        """The run's name in worklists and batches of samples."""
        return f"s{self.config.seed}-{config_sha(self.config)[:8]}"

    def patients(self) -> Patients:
        """Number of registered patients, in total and by class in the plan's order."""
        facts = self.data.facts
        per_class = tuple(int(facts["patients_per_class"].get(name, 0)) for name in self.plan.classes)
        return Patients(int(facts["patients"] if facts["patients"] is not None else facts["rows"]), per_class)


def terms_of(home: NodeHome, received: Received, message: Message, context: Context) -> Terms:
    """The terms on which this message may be answered.

    Raises:
        Shareable: the site has not agreed to the run, or the message is not an order of its coordinator.
    """
    if _is_join(message):
        run = join_run(home, received, message, context)
    else:
        name, record = _run_record(home, context)
        received.accept(home, load_plan(home, str(record["plan"])), name, message)
        run = load_run(home, context)
    return Terms(contracts_of(run.config), message_types(run.config), run.name, run.patients(), run.account())


def _is_join(message: Message) -> bool:
    return message.metadata.message_type == f"query.{names.JOIN_SITE}"


def join_run(home: NodeHome, received: Received, message: Message, context: Context) -> NodeRun | RegionRun:
    """Join a run, for the first time or again. Order, plan, data and parts are checked before anything is computed.

    Raises:
        Shareable: the message is not an order of the plan's coordinator, the plan is not approved or does not list
            this site with this key as this client, or the site's data do not fit it.
        FedimbError: the data changed since they were registered, or cannot be read.
    """
    asked: dict[str, Any] = dict(message.content.config_records.get(names.RUN) or {})
    try:
        sent = read_plan(str(asked.get("plan")))
    except ConfigError as error:
        raise Shareable(NOT_APPROVED, f"{home.site}: {error}") from None
    name = str(asked.get("run"))
    received.accept(home, sent, name, message)
    if reason := join_mismatch(home, sent, asked.get("client"), asked.get("clients")):
        raise Shareable(NOT_APPROVED, f"{home.site} does not join: {reason}")
    plan, config = require_approval(home, str(asked["plan"]), str(asked.get("cfg-json")))
    client, text = int(asked["client"]), str(asked["cfg-json"])
    if config.clients.regions is not None:
        region = join_region(home, name, plan, config, message)
        _keep_run(home, name, plan, text, client, context, {"region": region.facts})
        return region
    try:
        version = find_data_set(home, plan.tags)
    except ConfigError as error:
        raise Shareable(NOT_APPROVED, str(error)) from None
    _check_data(home, plan, version)
    run = NodeRun(home, name, plan, apply_site_overrides(home, config), client, plan.n_clients, version, config)
    run.account().check_join()
    version.verify(full=True)
    version.refuse_findings()
    version = pin_run(home, name, version, names=(run.short_name,))
    _check_subgroups(home, run.config, version)
    store = replace(run, data=version).store()
    _check_limits(home, plan, store, list(version.facts["schema"]["columns"]))
    _check_parts(home, run.config, store)
    _keep_run(home, name, plan, text, client, context, {})
    return replace(run, data=version)


def _keep_run(
    home: NodeHome, name: str, plan: StudyPlan, config: str, client: int, context: Context, more: JsonObject
) -> None:
    """Write what later messages of a run need."""
    record = {"format": FORMAT, "plan": plan.sha, "config": config, "client": client, "clients": plan.n_clients, **more}
    write_private(home.folder("state", "runs", name) / "run.json", json.dumps(record).encode())
    write_private(home.folder("state", "flower") / str(context.run_id), name.encode())


def _check_data(home: NodeHome, plan: StudyPlan, version: DataVersion) -> None:
    """Refuse data that the node check (``fedimb node check --plan``) says must not train.

    Raises:
        Shareable: of settings and columns without the reason, which is in the node's log.
    """
    schema, able = version.facts["schema"], version.facts["recordable"]
    if list(schema["classes"]) != list(plan.classes) or list(schema["shape"]) != list(plan.input_shape):
        raise Shareable(
            NOT_APPROVED,
            f"{home.site}: data set '{version.name}' has classes {', '.join(schema['classes'])} and rows of "
            f"{schema['shape']}; the plan says {', '.join(plan.classes)} and {plan.input_shape}: if it lacks a class "
            "or names them otherwise, register it again with all classes (--classes, or class_names={id: name})",
        )
    if missing := [name for name in plan.classes if name not in able]:
        raise Shareable(
            NOT_APPROVED, f"{home.site}: the labels of '{version.name}' cannot express class '{missing[0]}'"
        )
    if schema["task"] != "multiclass":
        raise Shareable(
            NOT_APPROVED,
            f"{home.site}: rows of data set '{version.name}' have several labels each, in a study one: register the "
            "data with one label per row, or leave the study",
        )
    for check in plan_checks(version.name, version, plan):
        if check.level == "fail":
            log.warning("data set '%s': %s: %s", check.name, check.found, check.remedy)
            text = f"{home.site}: data set '{version.name}' is read otherwise than the plan says"
            raise Shareable(NOT_APPROVED, f"{text}: the reason is in the node's log (fedimb node check --plan)")


def _check_limits(home: NodeHome, plan: StudyPlan, store: Store, columns: list[str]) -> None:
    low = high = np.zeros(0)
    if store.scaled is not None:
        low, high = column_ranges(store.x)
    if why := beyond(plan.limits, home.site, len(store), columns, low, high):
        raise Shareable(NOT_APPROVED, f"{home.site}: {why}")


def _check_parts(home: NodeHome, config: RunConfig, store: Store) -> None:
    if config.prior.provenance == "dp_sum" and config.prior.clip is not None and not store.names_patients:
        text = (
            f"prior.clip={config.prior.clip} protects patients, but the data set does not name them: register it with "
        )
        raise Shareable(NOT_APPROVED, f"{home.site}: {text}a patient column, or make a plan with prior.clip=null")
    columns = store.columns
    try:  # what its own columns, files and installation decide: the plan's check has seen none of them
        counts, categories = np.ones(store.n_classes, np.int64), None if columns is None else columns.one_hot
        check_client_parts(config, counts, store.input_shape, categories)
    except FedimbError as error:
        log.warning("%s", error)
        text = "a part of the plan cannot work with this site's columns, files or installation"
        raise Shareable(NOT_APPROVED, f"{home.site}: {text}: the reason is in the node's log") from None
    site = Site(store.task, store.class_names, store)
    for name, args in config.strategy.items():
        registry.build("client", name, **registry.accepted("client", name, args)).check(site)


def _check_subgroups(home: NodeHome, config: RunConfig, version: DataVersion) -> None:
    """Refuse subgroups that these rows do not have, or of which cells of fewer patients than may leave are shown.

    Raises:
        Shareable: without the reason, which may name columns or hold a value; it is in the node's log.
    """
    subgroups = parse_subgroups(config.data.get("subgroups"))
    if not subgroups:
        return
    floor, least = config.evaluation.subgroup_floor, home.config.sharing.min_patients
    if floor is None or floor < least:
        text = f"the plan shows subgroups of {floor or 1} patients or more, this site's sharing.min_patients is {least}"
        raise Shareable(NOT_APPROVED, f"{home.site}: {text}; set evaluation.subgroup_floor={max(least, 3)}")
    if not (columns := attribute_columns(subgroups)):
        return
    try:
        subgroups_of(version.open_store(columns), tuple(one for one in subgroups if one.column in columns))
    except FedimbError as error:
        log.warning("%s", error)
        raise Shareable(
            NOT_APPROVED,
            f"{home.site}: the rows of data set '{version.name}' cannot be grouped by {', '.join(columns)} "
            "(data.subgroups): the reason is in the node's log",
        ) from None


def load_run(home: NodeHome, context: Context) -> NodeRun | RegionRun:
    """Load the run a message belongs to, if it is still approved and its data are unchanged.

    Raises:
        Shareable: this node never joined the run, or the plan is no longer approved.
        DataError: the data changed, or records were withdrawn and the site stopped the run.
    """
    name, record = _run_record(home, context)
    if record.get("format") != FORMAT:
        text = f"{home.site} stored this run in the format of another release of fedimb: start a new run"
        raise Shareable(NOT_APPROVED, text)
    plan = approved_plan(home, str(record["plan"]))
    if plan is None:
        raise Shareable(NOT_APPROVED, f"{home.site}: plan {record['plan']} is no longer approved")
    asked = site_config(str(record["config"]))
    if asked.clients.regions is not None:
        return RegionRun(home, name, plan, asked, int(record["client"]), record["region"])
    version = pinned_version(home, name)
    version.verify(full=False)
    config, client, clients = apply_site_overrides(home, asked), int(record["client"]), int(record["clients"])
    return NodeRun(home, name, plan, config, client, clients, version, asked)


def _run_record(home: NodeHome, context: Context) -> tuple[str, JsonObject]:
    """(name, content of run.json) of the run a message belongs to. Raises Shareable if this node never joined it."""
    try:
        name = home.file("state", "flower", str(context.run_id)).read_text()
        return name, json.loads(home.file("state", "runs", name, "run.json").read_text())
    except (OSError, ValueError):
        raise Shareable(NOT_APPROVED, f"{home.site} has not joined this run: start it with fedimb deploy run") from None


def handle_message(home: NodeHome, message: Message, context: Context) -> Message:
    """Handle any message of a run that the site takes part in, and return the reply.

    Raises:
        Shareable: a person must act first; the text tells the coordinator what the run is waiting for.
    """
    run = load_run(home, context)
    if isinstance(run, RegionRun):
        return Message(run.joined() if _is_join(message) else run.answer(message), reply_to=message)
    if _is_join(message):
        return Message(_joined(run), reply_to=message)
    if message.metadata.message_type in OPENING:
        opening = SumOpening(run.home, run.plan, run.name, run.client, message)
        return Message(opening.reply(), reply_to=message)
    with site_folder(home):
        reply = runtime(run, message).handle(message, run.client)
    # The run ends here and sends the same message again when it is resumed; the client's work is kept.
    if not reply.has_error() and needs_person(reply.content) and (line := waiting_line(home, run.short_name)):
        raise Shareable(WAITING, f"waiting: {line}")
    return reply


def _joined(run: NodeRun) -> RecordDict:
    store = run.store()
    train, validation = run.split_rows(store)
    about = {"site": run.home.site, "rows": len(train), "validation": len(validation)}
    if run.labels is not None:
        about["left_out"] = len(store) - len(train) - len(validation)
    about |= {
        "version": run.data.version,
        "scale": float(store.scale),
        "key": signed_run_key(run.home, run.plan.sha, run.name),
    }
    about |= {"code": f"{__version__} {code_of(words_of(run.config), deployed=True).sha[:16]}"}
    if store.signal is not None and store.signal.rate_hz is not None:
        about |= {"rate": store.signal.rate_hz}
    reply = RecordDict({names.SITE: ConfigRecord(about)})  # type: ignore[arg-type]
    if text := input_names(store, run.data.about["source"]):
        reply[names.INPUTS] = ConfigRecord({"names": text})
    if store.scaled is not None:
        sums = sums_of_rows(store.x, train).reshape(3, -1)
        reply[names.SUMS] = array_record({"sums": sums, "scaled": np.asarray(store.scaled, bool).ravel()})
    return reply


def runtime(run: NodeRun, message: Message) -> ClientRuntime | RuntimeByKind:
    """The simulated clients' runtime on this site's rows, scaled as the message specifies."""
    secrets = NodeSecrets(run.home, run.plan, run.name, run.client, message)
    scaling = None
    if names.SCALING in message.content:
        sent = arrays_of(message.content, names.SCALING)
        scaling = Scaling(sent["mean"], sent["deviation"])
        del message.content[names.SCALING]
    store = run.store()
    train, validation = run.split_rows(store)
    states = StateStore(run.home.folder("state", "runs", run.name) / "clients")

    def data_of(client: int) -> ClientData:
        if client != run.client:
            raise FedimbError(f"this node is client {run.client}, not {client}")
        return ClientData(store, train, validation, scaling, labels=run.labels if run.coarse else None)

    check_kind(run, message)
    return runtime_of(run.config, data_of, states, len(run.plan.classes), tuple(run.plan.input_shape), secrets)


def check_kind(run: NodeRun, message: Message) -> None:
    """Refuse a message that names another network than the plan gives this site.

    Raises:
        FedimbError: both names.
    """
    if run.config.clients.models is None:
        return
    sites = [site.name for site in run.plan.sites]
    kinds = kinds_of(run.config, len(sites), lambda: {name: [client] for client, name in enumerate(sites)})
    said = dict(message.content.config_records[names.STEP]).get(names.KIND)
    if said != kinds[run.client]:
        raise FedimbError(
            f"the message is for the network {said!r}, and the plan gives this site {kinds[run.client]!r}"
        )


@lru_cache(maxsize=1)
def local_node(root: str) -> NodeHome:
    """The node of this process."""
    return NodeHome.open(Path(root))
