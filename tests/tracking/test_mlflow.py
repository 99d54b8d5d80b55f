"""A run as MLflow is told it: whole, once, and never in the way of training."""

import logging
import math
import time

import pytest

from fedimb.errors import FedimbError
from fedimb.tracking.mlflow import _BACK_OFF_S, MlflowTracker, NoTracker, sync
from fedimb.tracking.store import connect
from tracking.conftest import Folder, runs


def test_a_run_is_told_whole(folder, uri, points):
    folder.append(folder.line(1, test__loss=0.5, train__loss=1.5), folder.line(2, test__loss=0.25))
    art = folder.path / "artifacts"
    (art / "model").mkdir(parents=True)
    (art / "model" / "weights.txt").write_text("w")
    (art / "config.yaml").write_text("c")
    (art / "rows" / "fedavg").mkdir(parents=True)
    (art / "rows" / "fedavg" / "confusion.csv").write_text("1")
    tracker = MlflowTracker(folder.path, uri, "study")
    tracker.start()
    tracker.send(force=True)
    folder.append(folder.line(3, test__loss=0.125))
    folder.status("finished")
    tracker.finish()
    assert points(uri) == {
        ("fedavg", "test/loss"): [(1, 0.5), (2, 0.25), (3, 0.125)],
        ("fedavg", "train/loss"): [(1, 1.5)],
    }
    [run] = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.info.start_time == 1_700_000_000_001
    assert run.data.params == {"rounds": "4", "local.lr": "0.1", "name": "null"}
    assert run.data.tags["fedimb.seed"] == "3"
    assert run.data.tags["fedimb.status"] == "finished"
    client = connect(uri)
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {
        "model",
        "config.yaml",
        "confusion.csv",
    }
    assert [a.path for a in client.list_artifacts(run.info.run_id, "model")] == ["model/weights.txt"]


def test_runs_group_by_strategy(tmp_path, uri):
    for seed in range(2):
        folder = Folder(tmp_path / "study" / f"run{seed}", ("fedavg", "fedavg+la_post"))
        MlflowTracker(folder.path, uri, "study").start()
    client = connect(uri)
    experiment = client.get_experiment_by_name("study")
    for label in ("fedavg", "fedavg+la_post"):
        found = client.search_runs([experiment.experiment_id], f"tags.`fedimb.strategy` = '{label}'")
        assert len(found) == 2
        assert all(run.data.tags["fedimb.row"] == label for run in found)


def test_unforced_sends_are_rare_and_the_end_sends_all(folder, uri, points):
    tracker = MlflowTracker(folder.path, uri, "study")
    tracker.start()
    folder.append(folder.line(1, a=1.0))
    tracker.send()
    assert points(uri) == {}
    tracker._last -= 11
    tracker.send()
    assert points(uri) == {("fedavg", "a"): [(1, 1.0)]}
    folder.append(folder.line(2, a=2.0))
    tracker.finish()
    assert points(uri) == {("fedavg", "a"): [(1, 1.0), (2, 2.0)]}


def test_a_half_written_line_waits(folder, uri, points):
    whole = folder.line(2, a=2.0)
    folder.append(folder.line(1, a=1.0), whole[:20])
    tracker = MlflowTracker(folder.path, uri, "study")
    tracker.send(force=True)
    assert points(uri) == {("fedavg", "a"): [(1, 1.0)]}
    folder.append(whole[20:])
    tracker.send(force=True)
    assert points(uri) == {("fedavg", "a"): [(1, 1.0), (2, 2.0)]}


def test_undefined_and_infinite_become_nan(folder, uri, points):
    folder.append(folder.line(1, undefined=None, huge=math.inf, low=-math.inf, fine=1.0))
    MlflowTracker(folder.path, uri, "study").send(force=True)
    read = {name: values[0][1] for (_, name), values in points(uri).items()}
    assert math.isnan(read["undefined"])
    assert math.isnan(read["huge"])
    assert math.isnan(read["low"])
    assert read["fine"] == 1.0
    (folder.path / "tracking.json").unlink()
    sync(folder.path, uri, "study")
    assert all(len(values) == 1 for values in points(uri).values())


@pytest.mark.parametrize("tear", ["", "{", "[]", '{"uri": 3}'])
def test_a_lost_record_makes_no_second_run_and_no_second_point(folder, uri, points, tear):
    """The process died between create_run and tracking.json, or the disk tore it; fresh timestamps follow."""
    folder.append(folder.line(1, a=1.0), folder.line(2, a=2.0))
    MlflowTracker(folder.path, uri, "study").send(force=True)
    record = folder.path / "tracking.json"
    record.write_text(tear) if tear else record.unlink()
    (folder.path / "metrics.jsonl").unlink()
    folder.append(*(folder.line(step, time=1_800_000_000_000, a=float(step)) for step in (1, 2, 3)))
    MlflowTracker(folder.path, uri, "study").send(force=True)
    assert points(uri) == {("fedavg", "a"): [(1, 1.0), (2, 2.0), (3, 3.0)]}


def test_a_resume_that_cut_sent_lines_adds_no_point_twice(folder, uri, points):
    folder.append(*(folder.line(step, a=float(step)) for step in range(1, 7)))
    MlflowTracker(folder.path, uri, "study").send(force=True)
    path = folder.path / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    tracker = MlflowTracker(folder.path, uri, "study")
    tracker.start()
    for step in range(3, 9):  # the first sends end inside what was sent before
        folder.append(folder.line(step, time=1_800_000_000_000 + step, a=float(step)))
        tracker.send(force=True)
    assert points(uri) == {("fedavg", "a"): [(step, float(step)) for step in range(1, 9)]}


def test_resume_shows_the_run_as_running_again(folder, uri):
    folder.status("killed")
    sync(folder.path, uri, "study")
    assert runs(uri)[0].info.status == "KILLED"
    tracker = MlflowTracker(folder.path, uri, "study")
    folder.status("running")
    tracker.start()
    assert runs(uri)[0].info.status == "RUNNING"
    folder.status("waiting")
    tracker.finish()
    assert (runs(uri)[0].info.status, runs(uri)[0].data.tags["fedimb.status"]) == ("RUNNING", "waiting")


def test_odd_class_names_do_not_cost_the_batch(folder, uri, points):
    folder.append(folder.line(1, **{"test__recall__a (b)": 0.5, "test__recall__a [b]": 0.25, "plain": 1.0}))
    sync(folder.path, uri, "study")
    read = points(uri)
    assert len(read) == 3
    assert read[("fedavg", "plain")] == [(1, 1.0)]


def test_a_store_that_cannot_be_opened_warns_once_and_training_goes_on(folder, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    uri = f"sqlite:///{tmp_path}/file/mlflow.db"
    tracker = MlflowTracker(folder.path, uri, "study")
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        tracker.start()
        folder.append(folder.line(1, a=1.0))
        for _ in range(5):
            tracker.send(force=True)
    assert (time.monotonic() - began) / _BACK_OFF_S[0] < 0.5  # it does not wait out the pause after a failure
    assert len(caplog.records) == 1
    assert f"fedimb track sync {folder.path}" in caplog.text
    assert str(tmp_path / "file") in caplog.text
    with pytest.raises(FedimbError, match="cannot open the MLflow database"):
        sync(folder.path)


@pytest.mark.slow
def test_two_hundred_rounds_of_fifty_metrics_cost_what_mlflow_costs(folder, uri):
    """A ratio against the same 10,000 points sent bare, so that a slow machine does not decide."""
    from mlflow.entities import Metric

    tracker = MlflowTracker(folder.path, uri, "study")
    tracker.start()
    folder.append(*(folder.line(s, **{f"m{i:02d}": s + i / 50 for i in range(50)}) for s in range(200)))
    began = time.process_time()
    tracker.finish()
    ours = time.process_time() - began
    [run] = runs(uri)
    assert run.data.metrics["m49"] == 199 + 49 / 50
    client = connect(uri)
    bare = client.create_run(run.info.experiment_id).info.run_id
    began = time.process_time()
    for first in range(0, 200, 20):
        steps = range(first, first + 20)
        client.log_batch(bare, [Metric(f"m{i:02d}", s + i / 50, s, s) for s in steps for i in range(50)])
    theirs = time.process_time() - began
    print(f"10,000 points: {ours:.2f} cpu-s, bare {theirs:.2f} cpu-s, ratio {ours / theirs:.2f}")
    assert ours < 2 * theirs


def test_no_tracker_writes_nothing(folder):
    before = sorted(folder.path.iterdir())
    tracker = NoTracker()
    tracker.start()
    tracker.send(force=True)
    tracker.finish()
    assert sorted(folder.path.iterdir()) == before
