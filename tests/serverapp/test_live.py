"""Arrivals on record: the same versions as by a schedule, in any order within a buffer, and after a stop."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from interrupted import interrupted, only_run
from safetensors.numpy import load_file
from small_runs import config, launch_in

from fedimb.cli.main import main
from fedimb.errors import ConfigError, RunFailed
from fedimb.rundir.arrival_journal import ArrivalJournal
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp import launch
from fedimb.serverapp.progress import ProgressBar

# fedavgm keeps state at the server, moon at the clients
WORDS = (
    *("data=synthetic_table", "model=mlp", "engine=inline", "clients.count=6", "rounds=8", "local.lr=0.1"),
    *("pace=buffered", "pace.concurrency=4", "pace.slow=0.3", "pace.correction=exposure", "pace.max_staleness=3"),
    *("aggregator=moon", "loss=balanced_softmax", "checkpoint.every=2", "tracking=none", "evaluation.bootstrap=0"),
)


def weights(folder):
    return load_file(folder / "artifacts" / "model" / "model.safetensors")


def table(folder):
    with (folder / "artifacts" / "trainings.csv").open() as file:
        return list(csv.DictReader(file))


def used(folder):
    keys = ("training", "client", "version", "makes", "staleness", "weight", "discount")
    return [[one[key] for key in keys] for one in table(folder) if one["makes"]]


def record(to: Path, arrivals) -> Path:
    """A journal of these trainings, as a run at sites leaves it."""
    to.mkdir(parents=True)
    journal = ArrivalJournal(to)
    for one in arrivals:
        ns = round(float(one["ends_s"]) * 1e9)
        journal.append(b"", 0, int(one["training"]), int(one["client"]), int(one["version"]), ns, "")
    return to


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory):
    return launch_in(tmp_path_factory.mktemp("scheduled"), *WORDS).folder


@pytest.fixture(scope="module")
def arrivals(scheduled):
    """As they came, those that were too stale among them."""
    ended = [one for one in table(scheduled) if one["lost"] != "in flight at the end"]
    return sorted(ended, key=lambda one: (float(one["ends_s"]), int(one["training"])))


@pytest.fixture(scope="module")
def repeated(tmp_path_factory, arrivals):
    return again(tmp_path_factory.mktemp("repeated"), arrivals)


def again(to, arrivals, *more):
    own = config(*WORDS, *more).model_copy(update={"output_dir": str(to / "runs")})
    return launch.launch(own, None, ProgressBar(1, enabled=False), arrivals=record(to / "record", arrivals)).folder


def test_the_record_of_a_schedule_gives_its_versions(scheduled, repeated):
    """Only the unit of the exact sums differs: at sites it cannot depend on who will arrive."""
    assert used(repeated) == used(scheduled)
    assert len({one["version"] for one in table(scheduled)}) > 3
    assert any(float(one["weight"]) != 1 for one in table(scheduled) if one["makes"])
    for name, value in weights(scheduled).items():
        assert weights(repeated)[name] == pytest.approx(value, abs=1e-6), name


def test_the_order_within_a_buffer_changes_no_bit(tmp_path, arrivals):
    """Of equally many arrivals: exposure correction counts them, and is left out here."""
    words = ("rounds=2", "pace.correction=uniform")
    one = again(tmp_path / "one", arrivals, *words)
    last = [i for i, own in enumerate(arrivals) if own["makes"] == "2"]
    other = list(arrivals)
    other[last[0]], other[last[1]] = ({**arrivals[i], "ends_s": arrivals[j]["ends_s"]} for i, j in (last[::-1], last))
    own = again(tmp_path / "other", other, *words)
    orders = [[line.client for line in ArrivalJournal(folder).arrivals] for folder in (one, own)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    for name, value in weights(one).items():
        assert (weights(own)[name] == value).all()


@pytest.mark.parametrize(("version", "after"), [(3, False), pytest.param(4, True, marks=pytest.mark.slow)])
def test_stopped_and_resumed(tmp_path, repeated, arrivals, version, after):
    with interrupted(version, after):
        again(tmp_path, arrivals)
    folder = only_run(tmp_path)
    launch.resume(folder)
    for name, value in weights(repeated).items():
        assert (weights(folder)[name] == value).all()
    assert used(folder) == used(repeated)
    lines = [
        [{k: v for k, v in line["metrics"].items() if not k.startswith("time/")} for line in RunFolder(one).metrics()]
        for one in (folder, repeated)
    ]
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_a_record_that_does_not_fit_is_refused(tmp_path, arrivals):
    with pytest.raises(RunFailed, match="ends after 3 arrivals, and the run needs more"):
        again(tmp_path / "short", arrivals[:3])
    with pytest.raises(RunFailed, match=r"client \d arrives, and was not asked: repeat the run with the settings"):
        again(tmp_path / "seed", arrivals, "seed=7")
    own = config(*WORDS).model_copy(update={"output_dir": str(tmp_path)})
    with pytest.raises(ConfigError, match="does not exist: only runs at sites with pace=buffered or fedasync"):
        launch.launch(own, None, ProgressBar(1, enabled=False), arrivals=tmp_path)
    rounds = config("data=digits", "tracking=none")
    with pytest.raises(ConfigError, match="pace=sync has rounds"):
        launch.launch(rounds, None, ProgressBar(1, enabled=False), arrivals=record(tmp_path / "own", arrivals[:1]))


def test_each_line_says_which_version_it_is_of(scheduled, repeated):
    for folder in (scheduled, repeated):
        lines = RunFolder(folder).metrics()
        assert [line["metrics"]["async/version"] for line in lines] == [line["step"] for line in lines]


def test_the_command_repeats_and_compares(tmp_path, monkeypatch, capsys, repeated):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--repeat", str(repeated)]) == 0
    assert main(["run", "--repeat", str(repeated), "local.lr=0.2"]) == 1
    said = capsys.readouterr().err
    assert re.search(r"the weights differ from those of .* by up to \S+ \('.*'\): other data, code or", said)


def test_a_record_that_was_changed_after_the_run_is_refused(tmp_path, monkeypatch, capsys, repeated):
    copy = shutil.copytree(repeated, tmp_path / "copy")
    lines = (copy / "arrivals.jsonl").read_text().splitlines(keepends=True)
    (copy / "arrivals.jsonl").write_text("".join(lines[:-1]))  # the chain of hashes alone would not show it
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--repeat", str(copy)]) == 1
    assert "arrivals.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
