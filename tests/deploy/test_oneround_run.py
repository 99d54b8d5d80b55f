"""A head from class statistics at hospitals: masked sums end as the simulated run, and no site's own sums leave it."""

import json
from pathlib import Path

import pytest
from deployed import Study, assert_same, small_study, weights
from loopback import Loopback

from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.site.approvals import receive_plan
from fedimb.rundir.result import RunResult

SITES = {"linz": 60, "st-anna": 90, "va": 75}
ONE_ROUND = ("strategy=oneround", "tracking=none")
MASKED = {"query.oneround_masked_counts", "query.oneround_masked_sums", "query.oneround_masked_held_out"}


def deployed(study: Study) -> tuple[RunResult, Loopback]:
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    folder, grid = study.new(), Loopback(study.homes.values())
    serve(folder.path, grid)
    return RunResult.read(folder.path), grid


def artifact(result: RunResult) -> dict:
    return json.loads((result.folder / "artifacts" / "oneround.json").read_text())


@pytest.mark.slow
def test_masked_sums_at_hospitals_give_the_simulated_head(tmp_path: Path) -> None:
    study = small_study(tmp_path, SITES, *ONE_ROUND, "prior.provenance=none")
    result, grid = deployed(study)
    simulated = study.simulated(tmp_path / "simulated")
    assert_same(result, simulated, 1e-6)
    assert weights(result)["head.weight"].any()
    mine, theirs = artifact(result), artifact(simulated)
    assert mine["classes"] == theirs["classes"]
    assert mine["held_out"]["macro_recall"] == pytest.approx(theirs["held_out"]["macro_recall"])
    asked = {kind for _, kind in grid.asked}
    assert asked >= MASKED
    assert not asked & {"query.oneround_counts", "query.oneround_sums", "query.oneround_held_out", "train"}


@pytest.mark.slow
def test_open_sums_at_two_hospitals_are_those_that_the_plan_lists(tmp_path: Path) -> None:
    two = dict(list(SITES.items())[:2])
    study = small_study(tmp_path, two, *ONE_ROUND, "strategy.oneround.secure=false", "prior.provenance=none")
    result, grid = deployed(study)
    assert_same(result, study.simulated(tmp_path / "simulated"), 1e-6)
    listed = {row.message for row in study.plan.leaves if "oneround" in row.message}
    assert {kind for _, kind in grid.asked if "oneround" in kind} == listed
