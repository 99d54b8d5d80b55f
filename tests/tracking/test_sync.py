"""`sync` sends what a store lacks, once, whatever happened before."""

import json
import shutil

import pytest

from fedimb.errors import DataError, FedimbError
from fedimb.tracking import mlflow as tracking
from fedimb.tracking.lock import locked
from fedimb.tracking.mlflow import MlflowTracker, sync
from fedimb.tracking.state import load, save
from tracking.conftest import runs


def test_identical_lines_sent_twice_collapse(folder, uri, points):
    """The record of the last send was lost: the store keeps one of two identical points."""
    folder.append(folder.line(1, a=0.1, b=None), folder.line(2, a=1 / 3))
    MlflowTracker(folder.path, uri, "study").start()
    before = (folder.path / "tracking.json").read_bytes()
    MlflowTracker(folder.path, uri, "study").send(force=True)
    (folder.path / "tracking.json").write_bytes(before)
    report = sync(folder.path)
    assert report.sent_points == 3
    assert points(uri)[("fedavg", "a")] == [(1, 0.1), (2, 1 / 3)]
    assert len(points(uri)[("fedavg", "b")]) == 1


def test_sync_twice_is_once(folder, uri, points):
    folder.append(*(folder.line(step, a=float(step)) for step in range(50)))
    folder.status("failed")
    first = sync(folder.path, uri, "study")
    told = points(uri)
    second = sync(folder.path)
    assert (first.sent_points, second.sent_points) == (50, 0)
    assert first.runs == second.runs
    assert points(uri) == told == {("fedavg", "a"): [(step, float(step)) for step in range(50)]}
    assert runs(uri)[0].info.status == "FAILED"


def test_sync_builds_a_removed_database_again(folder, template, tmp_path, points):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    shutil.copy(template, old)
    shutil.copy(template, new)
    folder.append(folder.line(1, a=1.0))
    sync(folder.path, f"sqlite:///{old}", "study")
    state = load(folder.path)
    state.uri = state.uri.replace("old.db", "new.db")
    save(folder.path, state)
    assert sync(folder.path).sent_points == 1
    assert points(f"sqlite:///{new}") == {("fedavg", "a"): [(1, 1.0)]}


def test_damage_is_said_with_its_place(folder, uri):
    folder.append(folder.line(1, a=1.0), "garbage\n")
    at = len(folder.line(1, a=1.0))
    with pytest.raises(DataError, match=rf"metrics\.jsonl at byte {at}: not a line of metrics"):
        sync(folder.path, uri, "study")
    (folder.path / "metrics.jsonl").write_text(folder.line(1, row="other", a=1.0))
    with pytest.raises(DataError, match=r"row 'other' is not in rows\.json"):
        sync(folder.path, uri, "study")
    with pytest.raises(DataError, match="not the folder of a fedimb run"):
        sync(folder.path / "nowhere", uri, "study")


def test_sync_beside_a_sender_says_so(folder, uri, monkeypatch):
    monkeypatch.setattr(tracking, "_WAIT_S", 0.1)
    with locked(folder.path / "tracking.id", 0), pytest.raises(FedimbError, match="another process holds"):
        sync(folder.path, uri, "study")
    assert sync(folder.path, uri, "study").sent_points == 0


def test_sync_of_an_untracked_run_uses_its_output_folder(folder, template, tmp_path, points):
    shutil.copy(template, tmp_path / "mlflow.db")  # <output_dir>/mlflow.db for <output_dir>/<study>/<run>
    folder.append(folder.line(1, a=1.0))
    report = sync(folder.path)
    assert (report.uri, report.experiment) == (f"sqlite:///{tmp_path}/mlflow.db", "study")
    assert points(report.uri) == {("fedavg", "a"): [(1, 1.0)]}


def test_a_suspect_row_has_a_tag_with_the_reason(folder, uri):
    folder.append(folder.line(1, a=1.0))
    row = {"label": "fedavg", "suspect": {"classes": "predicts one class", "weights": "did not move"}}
    (folder.path / "result.json").write_text(json.dumps({"rows": [row]}))
    folder.status("finished")
    sync(folder.path, uri, "study")
    (run,) = runs(uri)
    assert run.data.tags["fedimb.suspect"] == "predicts one class; did not move"
    assert run.info.status == "FINISHED"
