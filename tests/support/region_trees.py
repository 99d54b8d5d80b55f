"""A root, two regions of two sites: folders with registered tables, plans and approvals, and their coordinators."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from coordinator import make_deployment, make_node
from deployed import small_study, weights
from flwr.app import Message
from ill_or_well import small_words, write_table
from loopback import Loopback

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.drafting import describe_data, write_plan
from fedimb.deploy.coordinator.region import (
    RegionServer,
    find_region_plan,
    plan_for_sites,
    refuse_pending,
    region_folder,
)
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.coordinator.sites import add_site, planned_keys
from fedimb.deploy.coordinator.submit import create_run
from fedimb.deploy.home import NodeHome
from fedimb.deploy.joining import read_join
from fedimb.deploy.region_spool import Spool
from fedimb.deploy.registered_data.datasets import register_data
from fedimb.deploy.site.approvals import decide_plan, receive_plan
from fedimb.deploy.study_plan.plan import StudyPlan, make_plan
from fedimb.deploy.study_plan.ranges import Range
from fedimb.errors import ConfigError, FedimbError
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.schema import RunConfig

SITES = {"nord": {"linz": 60, "st-anna": 90}, "sued": {"va": 75, "wien": 50}}
THREE = {"nord": {"linz": 60, "st-anna": 90}, "sued": {"va": 75, "wien": 50, "zell": 60}}
"""A region of three sites goes on without one of them; their names are in the order of one federation's."""


Faults = Callable[[str, Message], int | str | None]
"""See `loopback.Loopback`."""


def no_fault(site: str, message: Message) -> int | str | None:
    """Every site answers."""
    return None


@dataclass
class Region:
    """A region: its node, its deployment, its sites."""

    node: NodeHome
    deployment: Deployment
    sites: dict[str, NodeHome]


@dataclass
class Tree:
    """The whole tree."""

    root: Deployment
    regions: dict[str, Region]
    config: RunConfig
    plan: StudyPlan
    servers: dict[str, RegionServer] = field(default_factory=dict)

    def new(self, *overrides: str, join_s: float = 120.0, away_s: float = 300.0) -> RunFolder:
        """A run folder of the root."""
        return create_run(self.root, self.plan, overrides, join_s, away_s)

    def approve(self, *, sites: bool = True) -> None:
        """The regions agree to the root's plan, and make one that their sites agree to."""
        for name, region in self.regions.items():
            receive_plan(region.node, self.plan.to_json())
            decide_plan(region.node, self.plan.sha, "approved", "Dr. Region")
            try:
                own = find_region_plan(region.deployment, self.plan.sha, name)
            except ConfigError:
                own = plan_for_sites(region.deployment, self.plan, name)
                write_plan(region.deployment, own)
            for home in region.sites.values() if sites else ():
                receive_plan(home, own.to_json())
                decide_plan(home, own.sha, "approved", "Dr. Site")


def make_tree(to: Path, *overrides: str, sites: dict[str, dict[str, int]] | None = None) -> Tree:
    """Folders, keys, registered tables and the root's plan; nobody has approved anything."""
    sites = SITES if sites is None else sites
    rows = {site: n for own in sites.values() for site, n in own.items()}
    files = {site: write_table(to / f"{site}.csv", n, seed) for seed, (site, n) in enumerate(rows.items())}
    shape = ",".join(str(len(own)) for own in sites.values())
    words = [*small_words(files), f"clients.count={len(files)}", f"clients.regions=[{shape}]", "clients.min_members=2"]
    config = validate(compose((), shared=[*words, "tracking=none", *overrides]))
    like = to / "group.yaml"
    like.write_text(yaml.safe_dump(config.data), encoding="utf-8")
    root, regions = make_deployment(to / "root"), {}
    for name, own in sites.items():
        make_node(root, to / name)
        add_site(root, read_join(to / name / f"{name}.join.json"))
        deployment, homes = make_deployment(to / f"{name}-coordinator"), {}
        for site in own:
            make_node(deployment, to / site)
            homes[site] = NodeHome.open(to / site)
            register_data(homes[site], str(files[site]), "heads", ["heads"], like=str(like))
            add_site(deployment, read_join(to / site / f"{site}.join.json"))
        regions[name] = Region(NodeHome.open(to / name), deployment, homes)
    flat = config.model_copy(update={"clients": config.clients.model_copy(update={"regions": None})})
    classes, minority, shape_of = describe_data(flat, None, None, None)
    about = ("Ein Versuch", ["Dr. Jürgen Müller"], "2026-01-01T00:00:00Z", "2126-01-01T00:00:00Z")
    vary = {"seed": Range(), "rounds": Range(low=1, high=5), "clients.deadline_s": Range()}
    who = (root.signing_key(), planned_keys(root))
    plan = make_plan("heart", config, *about, vary, ["heads"], classes, minority, shape_of, *who, 20)
    write_plan(root, plan)
    return Tree(root, regions, config, plan)


class Served:
    """In the place of `Spool.wait`: the region's coordinator works, in this process, whenever its node waits.

    Args:
        tree: of which a region is asked.
        faults: (site, message) -> see `loopback.Loopback`, of the sites.

    Attributes:
        starts: of coordinators.
        offline: sites that are not online.
        said: why sites did not take part, as the region's log has it.
    """

    def __init__(self, tree: Tree, faults: Faults = no_fault) -> None:
        self.tree, self.faults = tree, faults
        self.starts = 0
        self.offline: set[str] = set()
        self.said: list[str] = []

    def restart(self) -> None:
        """The coordinators of all regions were killed."""
        self.tree.servers.clear()

    def __call__(self, spool: Spool) -> None:
        [(name, region)] = [one for one in self.tree.regions.items() if str(one[1].node.root) == str(spool._home.root)]
        try:
            if name not in self.tree.servers:
                self.starts += 1
                grid = Loopback(region.sites.values(), self.starts, self.faults)
                grid.offline = self.offline
                folder = region_folder(region.deployment, region.node.root, spool)
                self.tree.servers[name] = RegionServer(folder, grid)
            self.tree.servers[name].serve_pending()
        except FedimbError as error:
            self.said.append(str(error))
            refuse_pending(spool, name, error)
        except OSError:  # its ServerApp is killed; the question stays open, and the next one finds it
            self.tree.servers.pop(name, None)


def served(tree: Tree, monkeypatch: pytest.MonkeyPatch, faults: Faults = no_fault) -> Served:
    """From now on the regions' coordinators work."""
    found = Served(tree, faults)
    monkeypatch.setattr(Spool, "wait", lambda spool: found(spool))
    return found


def run(tree: Tree, folder: RunFolder, number: int = 1, faults: Faults = no_fault) -> RunResult:
    """The root's run, with its regions' nodes as its sites."""
    serve(folder.path, Loopback((region.node for region in tree.regions.values()), number, faults))
    return RunResult.read(folder.path)


def flat(
    to: Path,
    *overrides: str,
    sites: dict[str, dict[str, int]] | None = None,
    faults: Faults = no_fault,
) -> RunResult:
    """The same sites without regions, under one coordinator."""
    to.mkdir()
    rows = {site: n for own in (sites or SITES).values() for site, n in own.items()}
    study = small_study(to, rows, "tracking=none")
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    folder = study.new(*overrides)
    serve(folder.path, Loopback(study.homes.values(), faults=faults))
    return RunResult.read(folder.path)


def differing(one: RunResult, other: RunResult) -> set[str]:
    """Names of the weights that are not equal to the bit."""
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    return {name for name, value in mine.items() if value.tobytes() != theirs[name].tobytes()}
