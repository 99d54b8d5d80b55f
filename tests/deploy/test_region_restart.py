"""What of a tree is killed or goes away, and comes back: the same weights, or one line that says why not."""

import json
import threading
import time
from dataclasses import replace

import pytest
from deployed import events, usable
from flwr.app import RecordDict
from loopback import Loopback
from region_trees import SITES, THREE, Tree, differing, flat, make_tree, run, served

from fedimb.deploy.coordinator.drafting import write_plan
from fedimb.deploy.coordinator.region import RegionServer, plan_for_sites, region_folder
from fedimb.deploy.coordinator.sites import add_site
from fedimb.deploy.joining import read_join
from fedimb.deploy.region_spool import Spool
from fedimb.deploy.site.approvals import decide_plan, receive_plan
from fedimb.errors import ConfigError, RunFailed
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult

pytestmark = pytest.mark.slow  # processes wait for each other: on a busy machine longer than their limits


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> RunResult:
    """Of the four sites without regions."""
    return flat(tmp_path_factory.mktemp("flat") / "run", "seed=3")


def trained(message, number: int) -> bool:
    """Whether a message is that of a training round."""
    return message.metadata.message_type == "train" and message.content["x.fedimb"]["round"] == number


def missing(folder: RunFolder) -> list[tuple[str, int, int]]:
    """(region, sites in its sum, its sites) where they are not as many."""
    lines = map(json.loads, (folder.path / "journal.jsonl").read_text().splitlines())
    return [(line["site"], line["members"], line["sites"]) for line in lines if line.get("event") == "sites missing"]


def once(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """The ServerApp dies the first time that it is about to do this for a training round."""
    died, real = [], getattr(Spool, name)

    def dies(spool, about, *rest):
        if not died and getattr(about, "kind", "train") == "train":
            died.append(name)
            raise OSError("killed")
        real(spool, about, *rest)

    monkeypatch.setattr(Spool, name, dies)
    return died


def test_killed_after_its_sites_paid_and_before_it_answered_a_region_says_the_same(tmp_path, monkeypatch, expected):
    tree = make_tree(tmp_path)
    tree.approve()
    regions = served(tree, monkeypatch)
    died = [once(monkeypatch, "keep_members"), once(monkeypatch, "answer")]
    result = run(tree, tree.new("seed=3"))
    assert (died, regions.starts) == ([["keep_members"], ["answer"]], 4)
    assert differing(result, expected) == set()


def test_started_again_while_a_site_is_away_a_region_asks_the_others_and_then_the_one_that_is_back(
    tmp_path, monkeypatch
):
    tree = make_tree(tmp_path, sites=THREE)
    tree.approve()

    def back(site, message):
        if trained(message, 2) and site == "wien":
            sites = tree.servers["sued"]._sites
            sites._timeouts = replace(sites._timeouts, check_s=0.1)
            regions.offline.discard("zell")

    regions = served(tree, monkeypatch, back)
    folder = tree.new("seed=3")

    def root_dies(site, message):
        if trained(message, 2) and site == "nord":
            raise OSError("the servers are gone")

    with pytest.raises(OSError, match="the servers are gone"):
        run(tree, folder, 1, root_dies)
    regions.restart()
    regions.offline.add("zell")
    result = run(tree, folder, 2)
    assert usable(folder) == [2, 2]
    assert missing(folder) == []
    assert differing(result, flat(tmp_path / "flat", "seed=3", sites=THREE)) == set()


@pytest.mark.slow
def test_a_site_that_stays_away_costs_its_region_that_site_and_not_the_round(tmp_path, monkeypatch):
    tree = make_tree(tmp_path, sites=THREE)
    tree.approve()

    def gone(site, message):
        return "lost" if site == "zell" and trained(message, 1) else None

    regions = served(tree, monkeypatch, gone)
    given, ask = [], Spool.ask

    def noted(spool, kind, digest, content, wait_s):
        given.append((kind, wait_s))
        return ask(spool, kind, digest, content, wait_s)

    monkeypatch.setattr(Spool, "ask", noted)
    folder = tree.new("seed=3", "clients.deadline_s=4")
    run(tree, folder)
    assert missing(folder) == [("sued", 2, 3)]
    waits = {kind: round(wait_s, 6) for kind, wait_s in given}
    assert waits == {"query.join_site": 108.0, "train": 3.6, "query.scored": 3.6}
    sites = tree.servers["sued"]._sites.timeouts
    assert 0 < sites.join_s < 0.5 * 0.9 * 120  # twice this: to be online, and to join
    assert 0 < sites.deadline_s <= 0.9 * 3.6
    assert regions.starts == 2


def test_a_root_that_starts_again_is_answered_while_sites_work_on_its_last_question(tmp_path, monkeypatch, expected):
    tree = make_tree(tmp_path)
    tree.approve()
    told, asking = [], []

    def joins_again():
        spool = Spool(tree.regions["sued"].node.root, folder.path.name)
        spool.wait = lambda: time.sleep(0.01)
        told.append(spool.ask("query.join_site", "join", RecordDict(), 60.0))

    def slow(site, message):
        if site != "wien" or not trained(message, 1):
            return None
        if not asking:
            asking.append(threading.Thread(target=joins_again))
            asking[0].start()
        return "lost" if asking[0].is_alive() else None

    served(tree, monkeypatch, slow)
    folder = tree.new("seed=3")
    result = run(tree, folder)
    [answer] = told
    assert answer["x.site"]["rows"] + answer["x.site"]["validation"] == sum(SITES["sued"].values())
    assert usable(folder) == [2, 2]
    assert differing(result, expected) == set()


@pytest.mark.slow
def test_a_region_with_too_few_sites_in_one_round_is_all_its_sites_lost_in_that_round(tmp_path, monkeypatch):
    tree = make_tree(tmp_path)
    tree.approve()
    served(tree, monkeypatch, lambda site, message: 1304 if site == "va" and trained(message, 2) else None)
    folder = tree.new("seed=3", "rounds=3")
    result = run(tree, folder)
    assert usable(folder) == [2, 1, 2]
    [text] = set(events(folder))
    assert text.startswith("sued: 1 of its 2 sites gave a usable reply, and its sum must be over 2")
    lost = flat(
        tmp_path / "flat",
        "seed=3",
        "rounds=3",
        faults=lambda site, message: 1304 if site in SITES["sued"] and trained(message, 2) else None,
    )
    assert differing(result, lost) == set()


def test_a_node_that_two_regions_list_takes_part_in_one(tmp_path, monkeypatch):
    tree = make_tree(tmp_path)
    tree.approve()
    north, south = tree.regions["nord"], tree.regions["sued"]
    south.deployment.file("sites", "va.join.json").unlink()
    add_site(south.deployment, read_join(north.sites["linz"].root / "linz.join.json"))
    own = plan_for_sites(south.deployment, tree.plan, "sued")
    write_plan(south.deployment, own)
    del south.sites["va"]
    south.sites["linz"] = north.sites["linz"]
    for home in south.sites.values():
        receive_plan(home, own.to_json())
        decide_plan(home, own.sha, "approved", "Dr. Site")
    regions = served(tree, monkeypatch)
    with pytest.raises(RunFailed, match="sued does not take part: sued: its sites do not take part; the reason is in"):
        run(tree, tree.new("seed=3"))
    assert regions.said == ["linz does not take part: linz joined this run with another plan: start a new run"]


def north(tree: Tree, name: str = "again") -> tuple[Spool, RunFolder]:
    """The folder of a region's part of a run, which the root has asked for."""
    region = tree.regions["nord"]
    spool = Spool(region.node.root, name)
    spool.open({"plan": tree.plan.sha, "config": tree.plan.run_config().model_dump_json(), "region": "nord"})
    return spool, region_folder(region.deployment, region.node.root, spool)


@pytest.mark.parametrize("changed", ["plan", "config"])
def test_another_run_of_the_same_name_is_not_continued(tmp_path, changed):
    tree = make_tree(tmp_path)
    tree.approve()
    spool, _ = north(tree)
    region, config = tree.regions["nord"], tree.plan.run_config()
    north(tree)  # the same goes on
    about = {"plan": tree.plan.sha, "config": config.model_dump_json(), "region": "nord"}
    other = (
        {"plan": "0" * 64} if changed == "plan" else {"config": config.model_copy(update={"seed": 9}).model_dump_json()}
    )
    spool.open(about | other)
    with pytest.raises(ConfigError, match="is of another run of the same name"):
        region_folder(region.deployment, region.node.root, spool)


def test_a_site_that_tells_other_facts_when_it_joins_again_is_not_asked(tmp_path):
    tree = make_tree(tmp_path)
    tree.approve()
    region = tree.regions["nord"]
    _, folder = north(tree)
    RegionServer(folder, Loopback(region.sites.values(), 1))
    joined = folder.read_json("joined.json")
    grid = Loopback(region.sites.values(), 2)
    RegionServer(folder, grid)._engine.join_rest(5.0)
    assert grid.asked == [("linz", "query.join_site"), ("st-anna", "query.join_site")]
    assert folder.read_json("joined.json") == joined
    joined["linz"]["rows"] += 1
    folder.write_json("joined.json", joined)
    server = RegionServer(folder, Loopback(region.sites.values(), 3))
    with pytest.raises(RunFailed, match="linz tells other facts of its data than when it joined this run"):
        server._engine.join_rest(5.0)
    assert server._sites.rejoin.open >= {0}
