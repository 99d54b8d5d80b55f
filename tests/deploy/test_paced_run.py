"""Runs without rounds at sites: replies are taken as they come, in one process, in an order that a script says."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from deployed import Study, small_study, weights
from scripted import Scripted

from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.site.approvals import receive_plan
from fedimb.rundir.arrival_journal import read_arrivals
from fedimb.rundir.result import RunResult
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar

SITES = {"linz": 60, "st-anna": 90, "va": 75}
PACE = ("pace=buffered", "pace.concurrency=3", "pace.buffer=2")
# va is slow: it begins with version 0 and arrives when two versions have been made without it
SCRIPT = ["linz", "st-anna", "linz", "st-anna", "va", "st-anna", "linz", "va", "linz", "st-anna"]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return paced(tmp_path)


def paced(root: Path, *more: str) -> Study:
    study = small_study(root, SITES, "tracking=none", "rounds=5", *(more or PACE))
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    return study


def run(folder, grid) -> RunResult:
    serve(folder.path, grid)
    return RunResult.read(folder.path)


def repeated(study: Study, folder, to: Path) -> RunResult:
    config = study.config.model_copy(update={"output_dir": str(to)})
    return launch(config, None, ProgressBar(1, enabled=False), arrivals=folder.path)


def trainings(folder) -> list[dict[str, str]]:
    with (folder.path / "artifacts" / "trainings.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_slow_site_holds_no_version_and_its_record_gives_the_same_weights(study, tmp_path):
    folder, grid = study.new(), Scripted(study.homes.values(), SCRIPT)
    result = run(folder, grid)
    table = trainings(folder)
    names = sorted(SITES)
    assert [names[one.client] for one in read_arrivals(folder.path / "arrivals.jsonl")[0]] == SCRIPT
    slow = [one for one in table if one["client"] == "2"]
    assert (slow[0]["version"], slow[0]["makes"], slow[0]["staleness"]) == ("0", "3", "2")
    again = repeated(study, folder, tmp_path / "again")
    for name, value in weights(result).items():
        np.testing.assert_array_equal(weights(again)[name], value)
    assert (again.folder / "artifacts" / "trainings.csv").read_bytes() == (
        folder.path / "artifacts" / "trainings.csv"
    ).read_bytes()
