"""A root, two regions and two sites each, with real folders, keys and tables; only Flower's wires are short."""

import json
from pathlib import Path

import pytest
from deployed import assert_same, events, usable
from flwr.app import ConfigRecord, Message, RecordDict
from region_trees import THREE, Tree, differing, flat, make_tree, run, served

from fedimb.cli.main import main
from fedimb.config.regions import at_sites
from fedimb.config.validate import validate
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.region import plan_for_sites, region_folder
from fedimb.deploy.coordinator.serve import deployed_about, join_refusal
from fedimb.deploy.incidents import NOT_APPROVED, Shareable
from fedimb.deploy.region_spool import Spool
from fedimb.deploy.site.approvals import decide_plan, receive_plan
from fedimb.deploy.site.region import RegionAccount
from fedimb.deploy.study_plan.page import as_markdown
from fedimb.errors import ConfigError, RunFailed, RunWaiting
from fedimb.rundir.result import RunResult
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return make_tree(tmp_path)


def simulated(tree: Tree, to: Path, seed: int) -> RunResult:
    """The same four sites without regions, simulated."""
    changed = at_sites(tree.config).model_dump() | {"output_dir": str(to), "seed": seed}
    return launch(validate(changed), None, ProgressBar(1, enabled=False))


def test_the_tree_is_the_flat_run_to_the_bit_and_says_nothing_of_a_site(tree, tmp_path, monkeypatch):
    tree.approve()
    served(tree, monkeypatch)
    folder = tree.new("seed=2")
    result, other = run(tree, folder), flat(tmp_path / "flat", "seed=2")
    assert_same(result, simulated(tree, tmp_path / "simulated", 2), 1e-6)
    assert differing(result, other) == set()
    assert (result.rows[0].confusion == other.rows[0].confusion).all()
    assert usable(folder) == [2, 2]
    sites = [site for region in tree.regions.values() for site in region.sites]
    for path in folder.path.rglob("*"):  # what the root has
        if (
            path.is_file()
            and path.suffix in (".json", ".jsonl", ".csv")
            and path.name not in ("config.json", "plan.json")
        ):
            text = path.read_text()
            assert [site for site in sites if f'"{site}"' in text] == [], path
    for name, region in tree.regions.items():
        lines = AuditLog(region.node.file("audit.jsonl")).lines()
        sent = [line["facts"] for line in lines if line["kind"] == "message"]
        keys = {record["key"] for facts in sent for record in facts["records"]}
        assert keys <= {"x.site", "x.inputs", "x.sums", "x.partial", "metrics", "x.confusion", "x.region", "x.scores"}
        assert [facts["type"] for facts in sent].count("train") == 2
        for home in region.sites.values():
            assert AuditLog(home.file("audit.jsonl")).verify() is None
        assert name in as_markdown(plan_for_sites(region.deployment, tree.plan, name))


def test_killed_at_any_of_three_places_and_resumed_the_weights_are_the_same(tree, tmp_path, monkeypatch):
    tree.approve()
    late: list[str] = []

    def site_dies(site, message):
        if message.metadata.message_type == "train" and site == "wien" and not late:
            late.append(site)
            raise OSError("the region's ServerApp is gone")

    regions = served(tree, monkeypatch, site_dies)
    folder = tree.new("seed=3")

    def root_dies(site, message):
        if message.metadata.message_type == "train" and message.content["x.fedimb"]["round"] == 2 and site == "sued":
            raise OSError("the servers are gone")

    result = None
    for attempt in range(1, 4):
        try:
            result = run(tree, folder, attempt, root_dies if attempt < 3 else lambda site, message: None)
        except (OSError, RunFailed):
            regions.restart()  # whoever died, the regions' coordinators died too
    assert late == ["wien"]
    assert result is not None
    assert differing(result, flat(tmp_path / "flat", "seed=3")) == set()


def test_people_are_waited_for_at_both_levels(tree, monkeypatch):
    served(tree, monkeypatch)
    folder = tree.new()
    with pytest.raises(RunWaiting, match=r"^waiting: nord \(plan .{64}\); sued \(plan .{64}\)$"):
        run(tree, folder)
    tree.approve(sites=False)
    with pytest.raises(RunWaiting, match=r"^waiting: nord \(a site of the region: see its fedimb region run\); sued"):
        run(tree, folder, 2)
    tree.approve()
    tree.servers.clear()
    assert run(tree, folder, 3).rows


def test_a_region_without_enough_sites_is_lost_and_names_nobody(tree, monkeypatch):
    tree.approve()

    def lost(site, message):
        return 1304 if (site, message.metadata.message_type) == ("va", "train") else None

    served(tree, monkeypatch, lost)
    folder = tree.new()
    run(tree, folder)
    assert usable(folder) == [1, 1]
    [text] = set(events(folder))
    assert text.startswith("sued: 1 of its 2 sites gave a usable reply, and its sum must be over 2")
    assert "va" not in text.replace("must", "").split()


def test_a_region_of_other_sites_than_planned_is_refused(tree):
    region = tree.regions["nord"]
    region.deployment.file("sites", "linz.join.json").unlink()
    with pytest.raises(ConfigError, match=r"says that nord has 2 sites, and .* has 1 \(st-anna\)"):
        plan_for_sites(region.deployment, tree.plan, "nord")
    with pytest.raises(ConfigError, match="is for nord, sued, not for region west"):
        plan_for_sites(region.deployment, tree.plan, "west")


def test_without_a_plan_for_its_sites_a_region_says_so(tree, monkeypatch):
    for region in tree.regions.values():
        receive_plan(region.node, tree.plan.to_json())
        decide_plan(region.node, tree.plan.sha, "approved", "Dr. Region")
    served(tree, monkeypatch)
    with pytest.raises(RunFailed, match="nord does not take part: nord: has no plan of its sites for this run"):
        run(tree, tree.new())


def test_a_plan_without_regions_has_the_hash_it_had(tree):
    assert "part" not in json.loads(tree.plan.to_json())
    own = plan_for_sites(tree.regions["sued"].deployment, tree.plan, "sued")
    assert (own.client_of("va"), own.client_of("wien"), own.n_clients) == (2, 3, 4)
    assert own.part is not None
    assert own.part.root == tree.plan.sha


def test_a_region_whose_site_was_away_is_used_from_its_return_on_and_the_root_is_told(tmp_path, monkeypatch):
    tree = make_tree(tmp_path, sites=THREE)
    tree.approve()

    def away(site, message):
        first = message.metadata.message_type == "train" and message.content["x.fedimb"]["round"] == 1
        return 1304 if first and site == "va" else None

    served(tree, monkeypatch, away)
    folder = tree.new("seed=2", "rounds=3")
    run(tree, folder)
    assert usable(folder) == [2, 2, 2]
    assert not (folder.path / "left_out.jsonl").exists()
    journal = map(json.loads, (folder.path / "journal.jsonl").read_text().splitlines())
    missing = [line for line in journal if line.get("event") == "sites missing"]
    assert [(line["site"], line["members"], line["sites"]) for line in missing] == [("sued", 2, 3)]


def test_no_site_is_asked_to_join_a_run_that_the_region_s_ledger_does_not_allow(tree, monkeypatch):
    tree.approve()
    found = served(tree, monkeypatch)

    def used_up(account):
        raise Shareable(NOT_APPROVED, "nord: its budget is used up")

    monkeypatch.setattr(RegionAccount, "check_join", used_up)
    with pytest.raises(RunFailed, match="budget is used up"):
        run(tree, tree.new("seed=2"))
    assert found.starts == 0


@pytest.mark.parametrize(("largest", "fits"), [(128.0, True), (256.0, False), (100.0, False), (2.0**31, False)])
def test_a_region_s_largest_site_has_no_more_rows_than_the_region(tree, largest, fits):
    about = {"site": "nord", "rows": 110, "validation": 5, "scale": 1.0, "version": "0" * 64, "code": "0.2.0 abc"}
    content = RecordDict({"x.site": ConfigRecord(about | {"largest": largest})})
    refused = join_refusal(tree.plan, "nord", Message(content, reply_to=Message(RecordDict(), 1, "query.join_site")))
    assert (refused is None) is fits, refused
    assert fits or refused.field == "largest"


def test_waits_given_anew_are_those_of_a_run_that_exists(tree):
    tree.approve()
    north = tree.regions["nord"]
    spool = Spool(north.node.root, "again")
    config = tree.plan.run_config().model_dump_json()
    spool.open({"plan": tree.plan.sha, "config": config, "region": "nord"})
    for waits in ((300.0, 900.0), (60.0, 120.0)):
        folder = region_folder(north.deployment, north.node.root, spool, *waits)
        about = deployed_about(folder)
        assert (about.join_s, about.away_s) == waits


@pytest.mark.parametrize("words", [("--away", "-1"), ("--away", "0"), ("--join", "inf")])
def test_a_region_waits_for_its_sites_and_not_forever(tree, words, capsys):
    north = tree.regions["nord"]
    code = main(["region", "run", "--node", str(north.node.root), "--deployment", str(north.deployment.root), *words])
    assert code != 0
    assert f"{words[0]} {words[1]}: give a number of seconds above 0" in capsys.readouterr().err
