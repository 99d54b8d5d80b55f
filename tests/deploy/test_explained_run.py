"""Explanations at hospitals: the plan lists them, each site answers once and counts it, single rows stay there."""

import json
from pathlib import Path

import pytest
from deployed import Study, small_study
from loopback import Loopback

from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.site.approvals import receive_plan
from fedimb.rundir.explanations import read_explanations
from fedimb.rundir.result import RunResult

SITES = {"linz": 60, "st-anna": 90, "va": 75}
ASKED = (
    "tracking=none",
    "rounds=1",
    "explanation=[integrated_gradients,surrogate_tree,what_if]",
    "explanation.integrated_gradients.floor=5",
    "explanation.integrated_gradients.steps=4",
    "explanation.surrogate_tree.floor=5",
    "explanation.what_if.floor=5",
)


def run(study: Study) -> tuple[RunResult, Loopback]:
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    folder, grid = study.new(), Loopback(study.homes.values())
    serve(folder.path, grid)
    return RunResult.read(folder.path), grid


@pytest.mark.slow
def test_a_deployed_run_explains_its_model_once_and_the_site_counts_it(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    study = small_study(tmp_path, SITES, *ASKED)
    listed = {row.record for row in study.plan.leaves if row.message == "query.explain"}
    assert listed == {"x.explained", "x.explained_overall"}
    result, grid = run(study)
    found = read_explanations(result.folder)
    theirs = read_explanations(study.simulated(tmp_path / "simulated").folder)
    assert sorted(found) == ["integrated_gradients", "surrogate_tree", "what_if"]
    for name, facts in found.items():
        assert facts["rows"] == theirs[name]["rows"]
        assert sum(facts["rows"]) > 0
    assert found["surrogate_tree"]["fidelity"] == pytest.approx(theirs["surrogate_tree"]["fidelity"])
    for site, home in study.homes.items():
        assert grid.asked.count((site, "query.explain")) == 1
        lines = [json.loads(line) for line in home.file("audit.jsonl").read_text().splitlines()]
        [line] = [one["facts"] for one in lines if one["facts"].get("type") == "query.explain"]
        assert {record["key"] for record in line["records"]} >= listed
        assert "ledger" in line
        kept = {path.name for path in home.root.rglob("explanations/*")}
        assert {"integrated_gradients.npz", "what_if.csv", "sent.jsonl"} <= kept
    assert not list(result.folder.rglob("what_if.csv"))
    assert not list(result.folder.rglob("integrated_gradients*.npz"))


@pytest.mark.slow
def test_a_site_that_shares_no_class_counts_sends_no_explanation(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    study = small_study(tmp_path, SITES, *ASKED, "prior.provenance=none", "evaluation.secure=true")
    settings = study.homes["va"].file("node.yaml")
    settings.write_text(settings.read_text() + "\nsharing: {class_counts: false}\n")
    result, _ = run(study)
    facts = read_explanations(result.folder)["integrated_gradients"]
    assert facts["without"] == [sorted(study.homes).index("va")]
