"""A region's end towards its sites: its coordinator, which asks them what the root asks and answers with their sum.

The region's node puts the root's messages into its folder (`fedimb.deploy.region_spool`). `RegionServer` answers them
inside the ServerApp of the region's own SuperLink, with the sites that have joined; it holds no model and no state but
the list of sites of each answer. Ended at any moment and started again it gives the same answers, because sites
answer a message once and keep the reply.
"""

import hashlib
import json
import logging
import math
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedimb import __version__
from fedimb.atomic import write_atomic
from fedimb.config.load import config_sha, to_json
from fedimb.config.parts import build_model
from fedimb.config.regions import at_sites, first_site
from fedimb.contracts import platform as names
from fedimb.data.region_rows import RegionRows
from fedimb.deploy.audit_log import utc_now
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.rejoin import QUERY
from fedimb.deploy.coordinator.serve import DEPLOYED, SiteEngine, deployed_about, set_waits
from fedimb.deploy.coordinator.sites import planned_keys
from fedimb.deploy.coordinator.standby import refuse_standby
from fedimb.deploy.files import parse_settings
from fedimb.deploy.incidents import INCIDENT, NOT_APPROVED, WAITING
from fedimb.deploy.region_spool import Ask, Spool, time_below
from fedimb.deploy.study_plan.plan import RegionPart, StudyPlan, check_config, make_plan, read_plan, site_config
from fedimb.engine import processes
from fedimb.engine.flower_private import ensure_identity
from fedimb.engine.grid import Job
from fedimb.engine.region import Region
from fedimb.errors import ConfigError, FedimbError, RunWaiting
from fedimb.plain import JsonObject
from fedimb.records import array_record
from fedimb.rundir.checkpoints import fixed_hashes
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.seal import Manifest, write_seal
from fedimb.rundir.stored import read_config
from fedimb.schema import Strict
from fedimb.serverapp.assemble import admission_of

log = logging.getLogger("fedimb")

REGION_FILE = "region.json"
"""The file that marks a run folder as a region's part of a run of the root."""
IDLE_S = 600.0
"""Seconds without a question after which a region's ServerApp ends; the next question starts it again."""
_POLL_S = 0.2


class RegionSettings(Strict):
    """Content of region.json.

    Attributes:
        node: folder of the region's node.
        region: its name at the root.
        driver: ``{pid: start time}`` of fedimb region run, with which the ServerApp ends.
    """

    node: str
    region: str
    driver: dict[str, str]


def is_region(path: Path) -> bool:
    """Whether a run folder is a region's part of a run of the root."""
    return (path / REGION_FILE).is_file()


def plan_for_sites(deployment: Deployment, root: StudyPlan, region: str, purpose: str | None = None) -> StudyPlan:
    """The plan that a region's sites are asked to approve, made of the root's: the same study with other signatures.

    Args:
        deployment: the region's own, to which its sites have been added.
        root: the root's plan, which lists the region.
        region: its name there.
        purpose: in the region's own words; None: the root's.

    Raises:
        ConfigError: the plan is not for regions or not for this one, or the sites are not as many as it says.
    """
    config, place = root.run_config(), root.place_of(region)
    if config.clients.regions is None:
        raise ConfigError(
            f"plan {root.sha} is not for regions: its coordinator makes one with clients.regions=[N,...], the number "
            "of sites of each region"
        )
    if place is None:
        listed = ", ".join(site.name for site in root.sites)
        raise ConfigError(f"plan {root.sha} is for {listed}, not for region {region}")
    sites, expected = planned_keys(deployment), config.clients.regions[place]
    if len(sites) != expected:
        raise ConfigError(
            f"plan {root.sha} says that {region} has {expected} sites, and {deployment.root} has {len(sites)} "
            f"({', '.join(sites) or 'none'}): add or remove sites, or let the root make another plan"
        )
    part = RegionPart(
        region=region,
        root=root.sha,
        first=first_site(config.clients.regions, place),
        of=config.clients.count,
        min_members=config.clients.min_members,
    )
    limits = root.limits.model_copy(update={"rows": {}})  # those of the root are of regions
    about = (purpose or root.purpose, root.contacts, utc_now(), root.expires, root.vary, root.tags)
    data = (root.classes, root.minority, root.input_shape, deployment.signing_key(), sites)
    return make_plan(deployment.config.name, at_sites(config), *about, *data, root.runs, limits, part)


def find_region_plan(deployment: Deployment, root: str, region: str) -> StudyPlan:
    """The newest plan for a region's sites that was made of a plan of the root. Raises ConfigError if there is none."""
    found = []
    for path in deployment.file("plans").glob("*/plan.json"):
        plan = read_plan(path.read_text(encoding="utf-8"), str(path))
        if plan.part is not None and (plan.part.root, plan.part.region) == (root, region):
            found.append(plan)
    if not found:
        raise ConfigError(
            f"no plan for the sites of {region} was made from the root's plan {root}: fedimb region plan {root[:8]}"
        )
    return max(found, key=lambda plan: plan.created)


def region_folder(
    deployment: Deployment, node: Path, spool: Spool, join_s: float = 300.0, away_s: float = 1800.0
) -> RunFolder:
    """The run folder of a region's part of a run, made when the root first asks; its name is that of the root's run.

    Args:
        deployment: the region's own.
        node: folder of its node.
        spool: of the run.
        join_s, away_s: see `fedimb.deploy.coordinator.serve.Deployed`; of a folder that exists, too.

    Raises:
        ConfigError: no plan for the sites covers the run.
    """
    path, about = deployment.folder("runs", "region") / spool.run, spool.about()
    settings = RegionSettings(node=str(node), region=str(about["region"]), driver=processes.record([os.getpid()]))
    if (path / DEPLOYED).is_file():
        write_atomic(path / REGION_FILE, settings.model_dump_json().encode())
        found = RunFolder.open(path)
        _check_same_run(found, about)
        set_waits(found, join_s, away_s)
        return found
    plan = find_region_plan(deployment, str(about["plan"]), settings.region)
    config = at_sites(site_config(str(about["config"])))
    config = config.model_copy(update={"output_dir": str(deployment.folder("runs"))})
    check_config(plan, config)
    path.mkdir(exist_ok=True)
    folder = RunFolder(path)
    write_atomic(path / "config.json", to_json(config).encode())
    write_atomic(path / "plan.json", plan.to_json().encode())
    write_atomic(path / REGION_FILE, settings.model_dump_json().encode())
    sites = [site.name for site in plan.sites]
    write_seal(path, Manifest(files=fixed_hashes(path)))
    folder.set_status("new")
    about = {"deployment": deployment.config.name, "sites": sites, "join_s": join_s, "away_s": away_s}
    folder.write_json(DEPLOYED, about)  # last: the folder is complete
    return folder


def _check_same_run(folder: RunFolder, about: JsonObject) -> None:
    """Refuse a run of which this folder has another: both have one name, and their sites' client ids may differ."""
    plan = read_plan((folder.path / "plan.json").read_text(encoding="utf-8"))
    assert plan.part is not None, "region_folder makes runs of such plans only"
    asked = at_sites(site_config(str(about["config"])))
    if (plan.part.root, plan.part.region) != (about["plan"], about["region"]) or config_sha(asked) != config_sha(
        read_config(folder)
    ):
        raise ConfigError(
            f"{folder.path} is of another run of the same name (root's plan {plan.part.root[:12]}, asked for "
            f"{str(about['plan'])[:12]}): move it away, and let the root start a new run"
        )


class RegionServer:
    """Answers the questions of one run.

    Args:
        folder: of the region's part of the run.
        grid: Flower's, over the region's sites.

    Raises:
        RunWaiting: a site waits for a person. RunFailed, ConfigError, DataError: sites do not take part.
    """

    def __init__(self, folder: RunFolder, grid: Grid) -> None:
        path = folder.path
        settings = parse_settings(folder.read_json(REGION_FILE), RegionSettings, str(path / REGION_FILE))
        about = deployed_about(folder)
        plan = read_plan((path / "plan.json").read_text(encoding="utf-8"))
        assert plan.part is not None, "region_folder makes runs of such plans only"
        config = read_config(folder)
        self.spool, self.settings = Spool(Path(settings.node), path.name), settings
        if math.isfinite(left := min((ask.left_s() for ask in self.spool.pending()), default=math.inf)):
            # Half of it for all sites to be online, half for them to join.
            about = about.model_copy(update={"join_s": min(about.join_s, time_below(left) / 2)})
        self._engine = SiteEngine(grid, folder, about, plan, config, lazily=True)
        self._sites = sites = self._engine.grid(Job(str(path), "{}", len(about.sites)))
        sites.scaling = None  # the root's, over all regions, comes with its messages
        sites.meanwhile = self.spool.at_work
        federation = self._engine.federation
        model = build_model(config, federation.n_classes, federation.input_shape)
        admission = admission_of(config, federation, model.head.in_features)
        clients = config.clients.model_copy(update={"min_members": plan.part.min_members})
        self._read = set[str]()  # questions that need not be read again
        self._region = Region(settings.region, sites, range(len(about.sites)), clients, admission)

    def serve_pending(self) -> int:
        """Answer all open questions. Returns how many there were."""
        self.spool.at_work()
        asks = self.spool.pending()
        self._read = {ask.nonce for ask in asks}
        for ask in asks:
            self._answer(ask)
        return len(asks)

    def _meanwhile(self) -> None:
        """Answer a root that was started again while its last question is still open at the sites."""
        self.spool.at_work()
        for ask in self.spool.pending(self._read):
            self._read.add(ask.nonce)
            if ask.kind == QUERY:
                self.spool.answer(ask, self._facts())

    def _answer(self, ask: Ask) -> None:
        left = ask.left_s()
        if not left:
            return  # its asker has given up since
        deadline_s = time_below(left) if math.isfinite(left) else None
        self._sites.set_deadline(deadline_s)
        if ask.kind == QUERY:
            self._answer_join(ask, deadline_s)
            return
        message = Message(ask.content, 1, ask.kind)
        self._sites.meanwhile = self._meanwhile
        try:
            before = self.spool.members(ask.digest)
            reply, members = self._region.answer(message, before)
        except RunWaiting as error:
            log.warning("%s", error)
            self.spool.refuse(ask, WAITING, waiting_text(self.settings.region))
            return
        finally:
            self._sites.meanwhile = self.spool.at_work
        if reply.has_error():
            self.spool.refuse(ask, reply.error.code, str(reply.error.reason))
            return
        if before is None:
            self.spool.keep_members(ask.digest, members)
        self.spool.answer(ask, reply.content)

    def _answer_join(self, ask: Ask, deadline_s: float | None) -> None:
        try:
            self._engine.join_rest(deadline_s)
        except FedimbError as error:
            log.warning("%s", error)
            refuse(self.spool, ask, self.settings.region, error)
            return
        self.spool.answer(ask, self._facts())

    def _facts(self) -> RecordDict:
        """What the region tells of its sites when it joins: sums, hashes, and a power of two over their rows."""
        joined, region = self._engine.joined, self.settings.region
        [scale] = {site.scale for site in joined}
        rows = np.array([site.rows for site in joined])
        facts: dict[str, int | float | str] = {
            "site": region,
            "rows": int(rows.sum()),
            "validation": sum(site.validation for site in joined),
            "version": hashlib.sha256("\n".join(site.version for site in joined).encode()).hexdigest(),
            "scale": scale,
            "code": f"{__version__} {hashlib.sha256(json.dumps([s.code for s in joined]).encode()).hexdigest()[:16]}",
            "largest": RegionRows.of(rows).largest,
        }
        if joined[0].rate is not None:
            facts["rate"] = joined[0].rate
        content = RecordDict({names.SITE: ConfigRecord(facts)})  # type: ignore[arg-type]
        if all(site.names and site.names == joined[0].names for site in joined):
            content[names.INPUTS] = ConfigRecord({"names": joined[0].names})
        if (first := joined[0].sums) is not None:
            sums = np.sum([site.sums["sums"] for site in joined if site.sums is not None], axis=0)
            content[names.SUMS] = array_record({"sums": sums, "scaled": np.asarray(first["scaled"], bool)})
        return content


def waiting_text(region: str) -> str:
    """What the root is told while a site of the region waits for a person: no site's name."""
    return f"waiting: {region} (a site of the region: see its fedimb region run)"


def refuse_pending(spool: Spool, region: str, error: FedimbError) -> None:
    """Tell the root why its open questions have no answer, without what the error says of a site."""
    for ask in spool.pending():
        refuse(spool, ask, region, error)


def refuse(spool: Spool, ask: Ask, region: str, error: FedimbError) -> None:
    """Tell the root why one question has no answer."""
    if isinstance(error, RunWaiting):
        spool.refuse(ask, WAITING, waiting_text(region))
    elif isinstance(error, ConfigError):
        spool.refuse(ask, NOT_APPROVED, f"{region}: has no plan of its sites for this run; see its log")
    else:
        spool.refuse(ask, INCIDENT, f"{region}: its sites do not take part; the reason is in its log")


def serve_region(path: Path, grid: Grid, idle_s: float = IDLE_S) -> None:
    """Answer the root's questions in a region's ServerApp, until nobody asks or fedimb region run has ended.

    Raises:
        RunWaiting, RunFailed: sites do not join; the root has been told that it is so, and here is why.
    """
    ensure_identity()
    folder = RunFolder.open(path)
    refuse_standby(Deployment.of_run(path))
    settings = parse_settings(folder.read_json(REGION_FILE), RegionSettings, str(path / REGION_FILE))
    own = processes.record([os.getpid()])
    folder.write_json("processes.json", {"temp_dir": None, "driver": own, "processes": {}})
    try:
        server = RegionServer(folder, grid)
    except FedimbError as error:
        folder.set_status("waiting" if isinstance(error, RunWaiting) else "failed", str(error), type(error).__name__)
        refuse_pending(Spool(Path(settings.node), path.name), settings.region, error)
        raise
    folder.set_status("running")
    last = time.monotonic()
    while time.monotonic() - last < idle_s and _alive(settings.driver):
        if server.serve_pending():
            last = time.monotonic()
        time.sleep(_POLL_S)
    folder.set_status("finished")


def _alive(recorded: dict[str, str]) -> bool:
    return any(processes.start_time(int(pid)) == start for pid, start in recorded.items())
