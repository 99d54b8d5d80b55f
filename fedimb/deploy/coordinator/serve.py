"""The coordinator's side of a deployed run, inside Flower's ServerApp: sites join, then the usual run loop starts.

``fedimb deploy run`` made the run folder, which holds the plan, the configuration and the participating sites.
Everything after joining is the same as in a simulation, so a deployed run resumes, logs and ends the same way.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from pydantic import Field

from fedimb import registry
from fedimb.contracts import platform as names
from fedimb.contracts.region import REGIONS
from fedimb.data.region_rows import RegionRows
from fedimb.data.scaling import Scaling, scaling_of
from fedimb.data.windows import SignalFacts
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.federation import DeployedFederation, declared_labels
from fedimb.deploy.coordinator.rejoin import QUERY, Rejoin
from fedimb.deploy.coordinator.signed_messages import SignedMessages
from fedimb.deploy.coordinator.site_channel import SiteGrid
from fedimb.deploy.coordinator.site_grid import Timeouts
from fedimb.deploy.coordinator.standby import refuse_standby
from fedimb.deploy.files import parse_settings
from fedimb.deploy.input_names import agreed_columns, agreed_settings, check_input_names
from fedimb.deploy.study_plan.limits import wrong_sums
from fedimb.deploy.study_plan.plan import StudyPlan, read_plan
from fedimb.engine import processes
from fedimb.engine.admission import check_reply
from fedimb.engine.grid import Job
from fedimb.engine.record_checks import Refusal, Sizes
from fedimb.errors import ConfigError, DataError, FedimbError, RunFailed, RunWaiting
from fedimb.records import array_record, arrays_of
from fedimb.rundir.changes import check_unchanged
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.manifest import write_start
from fedimb.rundir.stored import read_config
from fedimb.schema import RunConfig, Strict
from fedimb.serverapp.influence import capped
from fedimb.serverapp.launch import execute
from fedimb.serverapp.left_out import LeftOut
from fedimb.sums import ceil_log2
from fedimb.text import clean_text

log = logging.getLogger("fedimb")

ACCEPTED = "accept-changes"
"""A file in the run folder while the run is resumed with ``--accept-changes``."""
JOINED = "joined.json"
"""The file with what the sites of a run reported when they joined."""
_FOREVER = 2**62  # a message after all others
DEPLOYED = "deployed.json"
"""The file that marks a run folder as one of a deployment."""
WAITS = "waits.json"
"""The file with ``join_s`` and ``away_s`` that were given anew for a run that has begun."""


class Deployed(Strict):
    """Content of deployed.json.

    Attributes:
        deployment: its name.
        sites: names of the sites in client-id order.
        join_s: seconds to wait for sites at the start.
        away_s: seconds to wait for a site that went away.
    """

    deployment: str
    sites: list[str] = Field(min_length=1)
    join_s: float = 300.0
    away_s: float = 1800.0


def is_deployed(folder: Path) -> bool:
    """Whether a run folder belongs to a deployment."""
    return (folder / DEPLOYED).is_file()


def deployed_about(folder: RunFolder) -> Deployed:
    """What a run folder's deployed.json says, with waits that were given anew (`set_waits`)."""
    about = parse_settings(folder.read_json(DEPLOYED), Deployed, str(folder.path / DEPLOYED))
    found = folder.read_json(WAITS, {})
    return about.model_copy(update={key: float(found[key]) for key in ("join_s", "away_s") if key in found})


def set_waits(folder: RunFolder, join_s: float, away_s: float) -> None:
    """Wait so many seconds for sites from the next start on; deployed.json stays as it was sealed."""
    folder.write_json(WAITS, {"join_s": join_s, "away_s": away_s})


def run_sites(folder: Path) -> list[str]:
    """Names of a deployed run's sites, in client-id order."""
    return list(deployed_about(RunFolder.open(folder)).sites)


def serve(path: Path, grid: Grid) -> None:
    """Execute a deployed run's folder, from the start or from its last checkpoint.

    Raises:
        ConfigError: the deployment is a standby's copy.
        RunWaiting, RunFailed: see `fedimb.errors`; the folder's status says the same.
    """
    folder = RunFolder.open(path)
    refuse_standby(Deployment.of_run(path))
    driver = processes.record([os.getpid()])  # lets a watcher see this process end, and a resume end it
    folder.write_json("processes.json", {"temp_dir": None, "driver": driver, "processes": {}})
    about = deployed_about(folder)
    plan = read_plan((path / "plan.json").read_text(encoding="utf-8"))
    config = read_config(folder)
    try:
        engine = SiteEngine(grid, folder, about, plan, config)
        _check_validation_rows(config, engine.joined)
    except FedimbError as error:
        folder.set_status("waiting" if isinstance(error, RunWaiting) else "failed", str(error), type(error).__name__)
        raise
    except Exception as error:
        folder.set_status("failed", f"{type(error).__name__}: {error}")
        raise
    if not (path / "rows.json").exists():
        write_start(folder, config, engine.federation)
    else:
        _check_same_data(folder, engine.federation)
        try:
            check_unchanged(folder, config, engine.federation, (path / ACCEPTED).exists())
        except FedimbError as error:
            folder.set_status("failed", str(error), type(error).__name__)
            raise
    execute(folder, config, engine.federation, engine, None)


def _check_validation_rows(config: RunConfig, joined: Sequence["JoinedSite"]) -> None:
    """Refuse a run that no row would score, as in a simulation; one region's sites may have none, all regions' not."""
    if (share := config.data.get("validation", 0.0)) and not sum(site.validation for site in joined):
        who = "sites" if config.clients.regions is None else "regions"
        raise DataError(
            f"data.validation={share:g} holds out no row of any of the {len(joined)} {who}, so nothing would be scored "
            "(a patient's rows stay on one side, as those of data.split.group, and a class's last row stays to train "
            "on): raise it in the plan, or let sites with more rows take part"
        )


def _check_same_data(folder: RunFolder, federation: DeployedFederation) -> None:
    """Refuse to resume on other data than the run started with."""
    began = folder.read_json("partition.json")["sha"]
    if began != federation.sha:
        text = "a site's data changed to another version since the run started (see fedimb node data): start a new run"
        folder.set_status("failed", text, "DataError")
        raise DataError(text)


@dataclass(frozen=True)
class JoinedSite:
    """What a site reported when it joined."""

    rows: int
    validation: int
    version: str
    scale: float
    sums: dict[str, np.ndarray] | None
    key: str
    code: str
    rate: float | None = None  # of signals
    left_out: int = 0
    names: str = ""  # of its columns, as `fedimb.deploy.input_names` writes them
    largest: float = 1.0  # of a region: a power of two that no site's rows exceed


class SiteEngine:
    """The engine of a deployed run: the sites that have joined. It does not own Flower's processes.

    Args:
        flower: Flower's Grid.
        folder, about, plan, config: of the run.
        lazily: whether sites of a run that all have joined before are not waited for now, but join again when they are
            asked for something (`fedimb.deploy.coordinator.rejoin`).
    """

    resume_with = "fedimb deploy run --resume"

    reusable = False

    def __init__(
        self,
        flower: Grid,
        folder: RunFolder,
        about: Deployed,
        plan: StudyPlan,
        config: RunConfig,
        lazily: bool = False,
    ) -> None:
        timeouts = Timeouts(about.join_s, about.away_s, config.clients.deadline_s)
        sites = [site.name for site in plan.sites]
        if about.sites != sites:
            raise ConfigError(f"{folder.path / DEPLOYED} lists other sites than the plan ({', '.join(sites)})")
        signed = SignedMessages(Deployment.of_run(folder.path), plan, folder.path.name)
        aside = LeftOut(folder.path, about.sites).aside(_FOREVER)
        self._folder, self._plan, self._sites = folder, plan, about.sites
        self._shared: dict[str, Any] = {
            "run": folder.path.name,
            "plan": (folder.path / "plan.json").read_text(encoding="utf-8"),
            "cfg-json": (folder.path / "config.json").read_text(),
            "clients": plan.n_clients,
        }
        if config.clients.regions is not None:
            self._shared["wait-s"] = float(timeouts.join_s)
        known = _read_joined(folder) if aside or lazily else {}
        lazily = lazily and known.keys() >= set(about.sites)
        rejoin = Rejoin(range(len(sites)), self._join_query, self._join_again) if lazily else None
        self._grid = SiteGrid(flower, about.sites, folder.path, timeouts, signed, frozenset(aside), rejoin)
        replies = {} if lazily else self._grid.query_all(names.JOIN_SITE, self._join_values)
        joined = []
        for client, name in enumerate(about.sites):
            if client not in aside and not lazily:
                joined.append(_read_join_reply(plan, name, replies.get(client)))
            elif name in known:
                joined.append(known[name])
            else:
                raise RunFailed(f"{name} is set aside, but has never joined this run: make a plan for the other sites")
        self.joined: list[JoinedSite] = joined
        _write_joined(folder, dict(zip(about.sites, joined, strict=True)))
        scaling = _scaling(joined, config.clients.max_weight_share, tuple(plan.input_shape))
        if scaling is not None:
            self._grid.scaling = array_record({"mean": scaling.mean, "deviation": scaling.deviation})
        if len({site.scale for site in joined}) > 1:
            raise DataError(
                "the sites' sources scale their rows differently: register the data with the same settings at all sites"
            )
        if len(rates := {site.rate for site in joined}) > 1:
            shown = ", ".join(sorted("an unknown rate" if rate is None else f"{rate:g} Hz" for rate in rates))
            raise DataError(
                f"the sites' signals have different sampling rates ({shown}): register them with resample_hz"
            )
        inputs = {name: one.names for name, one in zip(about.sites, joined, strict=True)}
        if unnamed := check_input_names(inputs):
            log.warning("%s", unnamed)
        labels = declared_labels(
            config, plan, [one.rows + one.validation for one in joined], [one.left_out for one in joined]
        )
        self.federation = DeployedFederation(
            plan,
            about.sites,
            [site.version for site in joined],
            [site.rows for site in joined],
            [site.validation for site in joined],
            scaling,
            joined[0].scale,
            [site.code for site in joined],
            labels,
        )
        self.federation.read_with, self.federation.embedded_by = agreed_settings(inputs)
        self.federation.agreed, channels = agreed_columns(inputs)
        self.federation.signal = _signal(joined[0].rate, channels, tuple(plan.input_shape))
        self.federation.pairs = {client: site.key for client, site in enumerate(joined)}
        if (regions := config.clients.regions) is not None:
            largest = [2.0 ** ceil_log2(site.largest) for site in joined]
            self.federation.regions = tuple(map(RegionRows, regions, largest))

    def _join_values(self, client: int) -> dict[str, Any]:
        return {**self._shared, "client": self._plan.first_client + client}

    def _join_query(self, client: int) -> Message:
        return Message(RecordDict({names.RUN: ConfigRecord(self._join_values(client))}), client + 1, QUERY)

    def _join_again(self, client: int, reply: Message) -> None:
        """Take what a site tells when it joins again. Raises RunFailed if it is not what it told at first."""
        site = self._sites[client]
        found, before = _read_join_reply(self._plan, site, reply), self.joined[client]
        if replace(found, sums=None, code="", key="") != replace(before, sums=None, code="", key=""):
            raise RunFailed(f"{site} tells other facts of its data than when it joined this run: start a new run")
        if found.code != before.code:
            log.warning("%s: its code changed since it joined this run", site)
        self.joined[client] = replace(found, sums=before.sums)
        _write_joined(self._folder, dict(zip(self._sites, self.joined, strict=True)))

    def join_rest(self, deadline_s: float | None) -> None:
        """Let those sites join again that have not and are online: what they tell may be new to who asks for it."""
        rejoin = self._grid.rejoin
        waiting = rejoin.open & self._grid.activations().keys()
        replies = self._grid.ask({client: rejoin.question(client) for client in sorted(waiting)}, deadline_s)
        for client, reply in replies.items():
            if (error := rejoin.refusal(client, reply)) is not None:
                raise RunFailed(f"{self._sites[client]} does not take part: {clean_text(error.reason)}")

    def grid(self, job: Job) -> SiteGrid:
        """The sites."""
        return self._grid

    @property
    def temp_dir(self) -> str | None:
        """None: a deployed run has no temporary folder to clean up."""
        return None

    def processes(self) -> list[int]:
        """Empty: Flower's processes belong to ``fedimb deploy up``."""
        return []

    def close(self) -> None:
        """Nothing to stop."""


def _signal(rate: float | None, channels: tuple[str, ...], shape: tuple[int, ...]) -> SignalFacts | None:
    """What the sites have told of their signals, with rows of ``shape``; None if these are not known to be signals."""
    channels = channels if len(channels) == shape[0] else ()
    return SignalFacts(rate, channels, shape[-1] if len(shape) == 2 else 0) if rate is not None or channels else None


def _write_joined(folder: RunFolder, joined: Mapping[str, JoinedSite]) -> None:
    """Keep what the sites reported, for a resume without one of them."""
    facts = {
        name: asdict(site) | {"sums": None if site.sums is None else {k: v.tolist() for k, v in site.sums.items()}}
        for name, site in joined.items()
    }
    folder.write_json(JOINED, facts)


def _read_joined(folder: RunFolder) -> dict[str, JoinedSite]:
    found = {}
    for name, facts in (folder.read_json(JOINED) or {}).items():
        sums = facts["sums"]
        arrays = None if sums is None else {"sums": np.array(sums["sums"]), "scaled": np.array(sums["scaled"], bool)}
        found[name] = JoinedSite(**(facts | {"sums": arrays}))
    return found


def _read_join_reply(plan: StudyPlan, site: str, reply: Message | None) -> JoinedSite:
    if reply is None or reply.has_error():
        why = "did not reply in time" if reply is None else clean_text(reply.error.reason)
        raise RunFailed(f"{site} does not take part: {why}")
    if (refused := join_refusal(plan, site, reply)) is not None:
        raise RunFailed(f"{site} does not take part: its reply is not as the plan says: {refused}")
    facts: dict[str, Any] = dict(reply.content.config_records[names.SITE])
    if facts["site"] != site:
        raise RunFailed(f"node {site} says it is {facts['site']}: it was registered under another site's name")
    sums = arrays_of(reply.content, names.SUMS) if names.SUMS in reply.content else None
    rows, validation, version = int(facts["rows"]), int(facts["validation"]), str(facts["version"])
    key, code = str(facts.get("key", "")), str(facts.get("code", "not reported"))
    rate = float(facts["rate"]) if "rate" in facts else None
    left_out = int(facts.get("left_out", 0))
    said = str(reply.content.config_records[names.INPUTS]["names"]) if names.INPUTS in reply.content else ""
    largest = float(facts.get("largest", 1.0))
    return JoinedSite(rows, validation, version, float(facts["scale"]), sums, key, code, rate, left_out, said, largest)


def join_refusal(plan: StudyPlan, site: str, reply: Message) -> Refusal | None:
    """What in a site's reply on joining is not as contract and plan say; None: nothing."""
    most, columns = plan.limits.rows_of(site), plan.input_shape[0]  # only tables and signals send sums
    samples = math.prod(plan.input_shape[1:])  # of a channel in a window; of a table 1
    sizes = Sizes({"C": len(plan.classes), "D": 1, "d": 1, "F": columns}, tuple(plan.input_shape))
    platform = registry.build("contract", "platform") if plan.run_config().clients.regions is None else REGIONS
    if (refused := check_reply([platform], reply, sizes, {"rows": most})) is not None:
        return refused
    facts: dict[str, Any] = dict(reply.content.config_records[names.SITE])
    held = facts["rows"] + facts["validation"] + facts.get("left_out", 0)
    if held > most:
        others = "'validation' and 'left_out'" if "left_out" in facts else "'validation'"
        return Refusal(names.SITE, "rows", f"adds up with {others} to {held} rows, of at most {most} in the plan")
    if (largest := facts.get("largest")) is not None:
        most_of_one = 2.0 ** ceil_log2(float(max(1, facts["rows"])))
        if largest > most_of_one or largest != 2.0 ** ceil_log2(largest):
            text = f"is {largest:g}, not a power of two of at most {most_of_one:g}, which the region's rows allow"
            return Refusal(names.SITE, "largest", text)
    if names.SUMS in reply.content:
        sums = arrays_of(reply.content, names.SUMS)["sums"]
        if wrong := wrong_sums(sums, int(facts["rows"]) * samples, plan.limits.ranges(columns)):
            return Refusal(names.SUMS, "sums", wrong)
    return None


def _scaling(joined: list[JoinedSite], share: float | None, shape: tuple[int, ...]) -> Scaling | None:
    """Column scaling from all sites' sums, added in client-id order; None if no source needs scaling.

    A site with more than ``share`` of all rows counts with that share. ``shape`` is that of one row: of signals
    (channels, length) the scaling is that of a channel, [channels, 1].
    """
    with_sums = [site.sums for site in joined if site.sums is not None]
    if not with_sums:
        return None
    if len(with_sums) < len(joined) or len({sums["sums"].shape for sums in with_sums}) > 1:
        raise DataError(
            "the sites' tables have different columns: register the data with the same settings at all sites"
        )
    rows = [float(site.rows) for site in joined]
    factors = [limit / n for n, limit in zip(rows, capped(rows, share), strict=True)]
    parts = [f * sums["sums"] if f < 1 else sums["sums"] for f, sums in zip(factors, with_sums, strict=True)]
    total = np.sum(parts, axis=0)
    found = scaling_of(total, cast(Any, with_sums[0]["scaled"]).astype(bool))
    per_column = (-1, *[1] * (len(shape) - 1))
    return Scaling(found.mean.reshape(per_column), found.deviation.reshape(per_column))
