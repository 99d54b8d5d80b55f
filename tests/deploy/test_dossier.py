"""A deployed run scored by subgroup, and the dossier of it: what answers which item, and what is said to be missing."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from deployed import Study, small_study
from loopback import Loopback

from fedimb.cli.main import main
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.dossier import check, gather
from fedimb.deploy.regulation import ARTEFACTS, ITEMS, artefact, items_table, with_tables
from fedimb.deploy.site.approvals import receive_plan
from fedimb.deploy.site.papers import paper_text, site_paper
from fedimb.errors import ConfigError, FedimbError
from fedimb.rundir.result import RunResult
from fedimb.rundir.seal import Damaged

DOCS = Path(__file__).parents[2] / "docs"
SITES = {"linz": 200, "st-anna": 240, "va": 220}
SCORED = ("data.subgroups=[{column: dose, bands: [9, 11]},site]", "evaluation.subgroup_floor=4", "tracking=none")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = small_study(tmp_path_factory.mktemp("study"), SITES, *SCORED)
    for home in made.homes.values():
        receive_plan(home, made.plan.to_json())
    made.approve()
    return made


@pytest.fixture(scope="module")
def run(study: Study) -> RunResult:
    folder = study.new("seed=2")
    serve(folder.path, Loopback(study.homes.values()))
    return RunResult.read(folder.path)


@pytest.fixture(scope="module")
def papers(study: Study, run: RunResult, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = []
    for site, home in study.homes.items():
        path = tmp_path_factory.mktemp("papers") / f"{site}.json"
        path.write_text(paper_text(site_paper(home, study.plan.sha[:12])), encoding="utf-8")
        found.append(path)
    return found


@pytest.fixture(scope="module")
def whole(run: RunResult, papers: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert main(["report", str(run.folder)]) == 0
    to = tmp_path_factory.mktemp("dossiers") / "whole"
    gather(run.folder, to, papers)
    return to


def test_the_subgroups_of_a_deployed_run_are_those_of_the_simulated_one(
    study: Study, run: RunResult, tmp_path: Path
) -> None:
    simulated = study.simulated(tmp_path, "seed=2")
    for label, tables in run.subgroups["rows"].items():
        for mine, theirs in zip(tables, simulated.subgroups["rows"][label], strict=True):
            for one, other in zip(mine["groups"], theirs["groups"], strict=True):
                assert one["rows"] == other["rows"]
                assert one["shown_recall"] == other["shown_recall"]
                np.testing.assert_allclose(one["shown_brier"] or 0, other["shown_brier"] or 0, atol=1e-5)
    assert run.subgroups["floor"] == 4
    shown = [n for table in run.subgroups["rows"]["fedavg"] for g in table["groups"] for n in g["rows"] if n]
    assert shown
    assert min(shown) >= 4


def test_the_plan_lists_what_leaves_and_needs_declared_groups_and_a_floor(study: Study) -> None:
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate
    from fedimb.deploy.coordinator.drafting import with_deployment_defaults
    from fedimb.deploy.coordinator.plan_checks import check_parts
    from fedimb.deploy.study_plan.ranges import Range, check_vary

    [row] = [row for row in study.plan.leaves if row.record == "x.subgroups"]
    assert row.message == "query.scored"
    assert row.shape == f"{2 * 4 * (2 + 31)} x C + 64"
    assert row.most_bytes == 8 * (2 * 2 * 4 * 33 + 64)
    config = study.config.model_dump()
    for change, said in (
        ({"evaluation": config["evaluation"] | {"subgroup_floor": None}}, "set evaluation.subgroup_floor=10"),
        ({"data": config["data"] | {"subgroups": ["dose"]}}, "do not share their values"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_parts(study.plan, validate(config | change))
    with pytest.raises(ConfigError, match="changes what leaves a site"):
        check_vary(study.config, {"evaluation.subgroup_floor": Range(low=3, high=10)})
    words = with_deployment_defaults(["data.subgroups=[site]"])
    assert "evaluation.subgroup_floor=10" in words
    assert validate(compose(words)).evaluation.subgroup_floor == 10


def test_a_site_with_a_higher_floor_does_not_join(study: Study) -> None:
    from fedimb.deploy.home import NodeHome
    from fedimb.deploy.incidents import Shareable
    from fedimb.deploy.site.node_app import _check_subgroups

    root = study.homes["linz"].root
    before = (root / "node.yaml").read_text(encoding="utf-8")
    try:
        (root / "node.yaml").write_text(before + "\nsharing: {min_patients: 5}\n", encoding="utf-8")
        with pytest.raises(Shareable, match=r"4 patients or more.*min_patients is 5; set evaluation.subgroup_floor=5"):
            _check_subgroups(NodeHome.open(root), study.config, None)  # type: ignore[arg-type]
    finally:
        (root / "node.yaml").write_text(before, encoding="utf-8")


def test_a_site_without_the_column_does_not_join_and_keeps_the_reason(
    study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    from fedimb.deploy.incidents import Shareable
    from fedimb.deploy.registered_data.datasets import find_data_set
    from fedimb.deploy.site.node_app import _check_subgroups

    home = study.homes["linz"]
    data = study.config.data | {"subgroups": [{"column": "doses", "bands": [9]}]}
    with pytest.raises(Shareable, match="cannot be grouped by doses") as refused:
        _check_subgroups(home, study.config.model_copy(update={"data": data}), find_data_set(home, study.plan.tags))
    assert "dose'" not in str(refused.value)
    assert "Did you mean 'dose'" in caplog.text


def test_a_dossier_with_every_artefact_is_complete(whole: Path, study: Study) -> None:
    found = check(whole)
    assert found.complete
    assert found.answered == tuple(item.name for item in ITEMS)
    assert found.missing == found.damaged == ()
    assert found.for_people == tuple(item.name for item in ITEMS if item.people)
    index = (whole / "index.md").read_text(encoding="utf-8")
    assert "**missing**" not in index
    assert index.count("(**open**)") == len(found.for_people)
    assert study.plan.sha in index
    [paper] = [json.loads((whole / "sites" / "linz.json").read_text())]
    assert paper["approval"]["by"] == "Dr. Test"
    assert paper["data"]["rows"] == SITES["linz"]
    assert paper["asked"]["rounds"] == 2
    assert paper["audit"]["messages"]["train sent"] == 2
    assert not list(whole.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("item", "key"), [(item.name, key) for item in ITEMS for key in item.artefacts], ids=lambda one: str(one)
)
def test_an_item_is_unanswered_without_its_artefact(item: str, key: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "d")
    name = artefact(key).files[-1]
    gone = tmp_path / "d" / name
    if name.endswith("/"):
        gone = sorted(gone.iterdir())[0]
    gone.unlink()
    found = check(tmp_path / "d")
    assert item in found.unanswered
    [missing] = [one for one in found.missing if one.artefact == key]
    assert missing.verb == artefact(key).verb
    assert item in missing.items
    assert not found.complete
    others = {name for one in found.missing for name in one.items}
    assert set(found.unanswered) == others


@pytest.mark.parametrize("change", ["altered", "added", "linked", "manifest"])
def test_a_changed_dossier_is_found(change: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    shutil.copytree(whole, folder)
    if change == "altered":
        (folder / "run" / "plan.md").write_text("another", encoding="utf-8")
    elif change == "added":
        (folder / "more.txt").write_text("more", encoding="utf-8")
    elif change == "linked":
        (folder / "monitor.json").unlink()
        (folder / "monitor.json").symlink_to(whole / "monitor.json")
    else:
        text = (folder / "manifest.json").read_text(encoding="utf-8")
        (folder / "manifest.json").write_text(text.replace('"linz"', '"graz"', 1), encoding="utf-8")
        with pytest.raises(Damaged, match="gather the dossier again"):
            check(folder)
        return
    found = check(folder)
    assert found.damaged == ({"altered": "run/plan.md", "added": "more.txt", "linked": "monitor.json"}[change],)
    assert not found.complete


def test_what_is_missing_is_named_with_the_verb_that_makes_it(
    run: RunResult, papers: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", "dossier", str(run.folder), "--to", str(tmp_path / "d"), "--paper", str(papers[0])]) == 1
    said = capsys.readouterr().out
    assert "missing: sites (sites/st-anna.json, sites/va.json), for AI Act 10(2), AI Act 12(1)" in said
    assert "make it with: fedimb node papers --to FILE at each site" in said
    assert main(["deploy", "dossier", "--check", str(tmp_path / "d"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [one["artefact"] for one in told["missing"]] == ["sites"]
    assert not told["complete"]


def test_documents_of_people_are_attached(run: RunResult, tmp_path: Path) -> None:
    document = tmp_path / "dpia.pdf"
    document.write_bytes(b"%PDF")
    found = gather(run.folder, tmp_path / "d", attached={"GDPR 35(7)": document})
    assert "GDPR 35(7)" not in found.for_people
    assert (tmp_path / "d" / "attached" / "GDPR-35-7-.pdf").read_bytes() == b"%PDF"
    with pytest.raises(ConfigError, match=r"no such item. Did you mean 'GDPR 35\(7\)'"):
        gather(run.folder, tmp_path / "e", attached={"GDPR 35(77)": document})


def test_papers_of_another_plan_or_site_are_refused(run: RunResult, papers: list[Path], tmp_path: Path) -> None:
    paper = json.loads(papers[0].read_text())
    for change, said in (({"plan": "0" * 64}, "is about plan 000"), ({"site": "graz"}, "'graz', which the run's plan")):
        (tmp_path / "paper.json").write_text(json.dumps(paper | change))
        with pytest.raises(ConfigError, match=said):
            gather(run.folder, tmp_path / "d", [tmp_path / "paper.json"])
        assert not (tmp_path / "d").exists()


def test_a_stale_file_is_refused(run: RunResult, whole: Path, papers: list[Path], tmp_path: Path) -> None:
    """A paper from before the run, or of other data, and a report of an earlier result looked like any others."""
    paper = json.loads(papers[0].read_text())
    stale = {
        "it does not know the data that": paper | {"versions": ["0" * 64]},
        "and linz has told of": paper | {"audit": paper["audit"] | {"lines": 3}},
    }
    for said, content in stale.items():
        (tmp_path / "p.json").write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=said):
            gather(run.folder, tmp_path / "d", [tmp_path / "p.json"])
    with pytest.raises(ConfigError, match="is a second paper of site 'linz'"):
        gather(run.folder, tmp_path / "d", [papers[0], papers[0]])
    copied = tmp_path / "run"
    shutil.copytree(run.folder, copied)
    os.utime(copied / "report.html", (0, 0))
    with pytest.raises(ConfigError, match="is older than the run's result: make it again"):
        gather(copied, tmp_path / "d", papers)


def test_a_run_whose_seal_does_not_hold_is_refused(run: RunResult, tmp_path: Path) -> None:
    for name in ("result.json", "artifacts/subgroups.json", "config.json"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(run.folder, copy)
        text = (copy / name).read_text(encoding="utf-8")
        (copy / name).write_text(text.replace("0", "1", 1), encoding="utf-8")
        with pytest.raises(Damaged):
            gather(copy, tmp_path / "d")
        assert not (tmp_path / "d").exists()
    bare = tmp_path / "bare"
    shutil.copytree(run.folder, bare)
    (bare / "seal.json").unlink()
    with pytest.raises(FedimbError):
        gather(bare, tmp_path / "d")


def test_the_page_has_the_table_of_the_code() -> None:
    page = (DOCS / "regulation.md").read_text(encoding="utf-8")
    assert with_tables(page) == page, "python -m fedimb.deploy.regulation docs writes it again"
    assert len(items_table()) == len(ITEMS) + 1


def test_every_artefact_is_used_and_every_key_exists() -> None:
    used = {key for item in ITEMS for key in item.artefacts}
    assert used == {one.key for one in ARTEFACTS}
    assert len({item.name for item in ITEMS}) == len(ITEMS)
    for law, articles in (
        ("AI Act", ("9", "10", "11", "12", "13", "14", "15", "26")),
        ("GDPR", ("5", "25", "30", "35")),
    ):
        for article in articles:
            assert any(i.law == law and i.place.split("(")[0] == article for i in ITEMS), (law, article)
