"""Runs without rounds at sites: replies are taken as they come, in one process, in an order that a script says."""

import csv
from pathlib import Path

import numpy as np
import pytest
from deployed import Study, events, small_study, weights
from scripted import Scripted

from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.site.approvals import receive_plan
from fedimb.deploy.site.ledger import Ledger
from fedimb.deploy.site.spending import spent
from fedimb.rundir import arrival_journal
from fedimb.rundir.arrival_journal import ArrivalJournal, read_arrivals
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.identity import Present, read_identity
from fedimb.rundir.result import RunResult
from fedimb.rundir.seal import sha256_of
from fedimb.rundir.stored import read_config, read_federation
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar

SITES = {"linz": 60, "st-anna": 90, "va": 75}
PACE = ("pace=buffered", "pace.concurrency=3", "pace.buffer=2")
# va is slow: it begins with version 0 and arrives when two versions have been made without it
SCRIPT = ["linz", "st-anna", "linz", "st-anna", "va", "linz", "st-anna", "va"]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    study = small_study(
        tmp_path_factory.mktemp("study"), SITES, "tracking=none", "rounds=4", "checkpoint.every=2", *PACE
    )
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    return study


@pytest.fixture(scope="module")
def reference(study):
    """The folder of a run that nothing disturbed."""
    folder = study.new()
    run(folder, Scripted(study.homes.values(), SCRIPT))
    return folder


def run(folder, grid) -> RunResult:
    serve(folder.path, grid)
    return RunResult.read(folder.path)


def repeated(study: Study, folder, to: Path) -> RunResult:
    config = study.config.model_copy(update={"output_dir": str(to)})
    return launch(config, None, ProgressBar(1, enabled=False), arrivals=folder.path)


def trainings(folder) -> list[dict[str, str]]:
    with (folder.path / "artifacts" / "trainings.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_slow_site_holds_no_version_and_its_record_gives_the_same_weights(study, reference, tmp_path):
    folder, result = reference, RunResult.read(reference.path)
    table = trainings(folder)
    names = sorted(SITES)
    assert [names[one.client] for one in read_arrivals(folder.path / "arrivals.jsonl")[0]] == SCRIPT
    slow = [one for one in table if one["client"] == "2"]
    assert (slow[0]["version"], slow[0]["makes"], slow[0]["staleness"]) == ("0", "3", "2")
    again = repeated(study, folder, tmp_path / "again")
    for name, value in weights(result).items():
        np.testing.assert_array_equal(weights(again)[name], value)
    own = read_identity(again.folder)
    assert own is not None
    assert own.inputs["recorded.jsonl"] == sha256_of(folder.path / "arrivals.jsonl")
    now = Present().identity(read_config(RunFolder(again.folder)), own, read_federation(RunFolder(again.folder)))
    assert now.inputs == own.inputs  # so it can be resumed
    assert (again.folder / "artifacts" / "trainings.csv").read_bytes() == (
        folder.path / "artifacts" / "trainings.csv"
    ).read_bytes()


@pytest.mark.parametrize(
    "when", [pytest.param("before", marks=pytest.mark.slow), "within", pytest.param("after", marks=pytest.mark.slow)]
)
def test_killed_between_an_arrival_and_the_flush(study, reference, monkeypatch, when):
    """A reply whose line is not written is asked for again; one with a line is taken from the journal."""
    whole, folder = RunResult.read(reference.path), study.new()
    stopped_at = 4  # the third version is made of the fifth and sixth; a checkpoint was written before them
    append, write = ArrivalJournal.append, arrival_journal.write_atomic

    def killed(self, *args):
        if len(self.arrivals) == stopped_at and when == "before":
            raise KeyboardInterrupt
        if len(self.arrivals) == stopped_at and when == "within":
            monkeypatch.setattr(arrival_journal, "write_atomic", lambda *a: (write(*a), stop()))
        append(self, *args)
        if len(self.arrivals) == stopped_at + 1:
            stop()

    def stop():
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ArrivalJournal, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            serve(folder.path, Scripted(study.homes.values(), SCRIPT))
    monkeypatch.setattr(arrival_journal, "write_atomic", write)
    arrived = stopped_at + (when == "after")
    with open(folder.path / "arrivals.jsonl", "a") as file:
        file.write('{"after": "cut o')  # a kill can leave a part of a line
    rest = Scripted(study.homes.values(), SCRIPT[arrived:], run_id=2)
    result = run(folder, rest)
    assert rest.arrived == SCRIPT[arrived:]  # nobody is asked for what is in the journal
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(weights(result)[name], value)
    assert metrics(folder) == metrics(reference)
    assert not (folder.path / "arrivals").exists()  # no site's update stays when the run has ended


@pytest.mark.slow
def test_a_lost_site_holds_nobody(study, tmp_path):
    folder = study.new(away_s=0.0)
    flower_says = [3]

    def gone(site, message):
        return flower_says.pop() if flower_says and (site, message.metadata.message_type) == ("va", "train") else None

    lost = Scripted(study.homes.values(), ["va", *["linz", "st-anna"] * 4], faults=gone)
    result = run(folder, lost)
    assert [int(one["makes"]) for one in trainings(folder) if one["makes"]] == [1, 1, 2, 2, 3, 3, 4, 4]
    failed = [one for one in read_arrivals(folder.path / "arrivals.jsonl")[0] if one.failed]
    assert [one.client for one in failed] == [2]  # asked again, it says nothing until the end, which nobody waits for
    assert "va is away; asked again when it is back" in events(folder)
    again = repeated(study, folder, tmp_path / "again")
    for name, value in weights(result).items():
        np.testing.assert_array_equal(weights(again)[name], value)


def metrics(folder) -> list[dict]:
    """Of each version, without those of the clock on the wall."""
    return [
        {key: value for key, value in line["metrics"].items() if not key.startswith("time/")}
        for line in folder.metrics()
    ]


@pytest.mark.slow
def test_a_site_counts_every_message_at_its_own_limit(study):
    """A fast site is asked once per version; beyond its budget it refuses, and the run goes on with the others."""
    folder, home = study.new(), study.homes["va"]
    before, counted = home.file("node.yaml").read_text(), rounds_counted(home)
    home.file("node.yaml").write_text(f"{before}budget:\n  rounds: {counted + 2}\n")
    try:
        run(folder, Scripted(study.homes.values(), ["va", "linz", "va", "linz", "va", "linz", "st-anna"]))
    finally:
        home.file("node.yaml").write_text(before)
    arrivals = [one for one in read_arrivals(folder.path / "arrivals.jsonl")[0] if one.client == 2]
    assert [bool(one.failed) for one in arrivals[:3]] == [False, False, True]
    assert "va answers no more than" in arrivals[2].failed
    assert rounds_counted(home) == counted + 2
    asked = [one.version for one in arrivals]
    assert len(asked) == len(set(asked))  # no version is asked for twice


def rounds_counted(home) -> int:
    ledger = Ledger(home)
    with ledger.locked():
        return spent(ledger, "heads").rounds
