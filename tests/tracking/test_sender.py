"""The process that sends: everything arrives, whatever ends first, and the command never waits for it."""

import logging
import os
import signal
import time

import pytest

from fedimb.tracking.mlflow import sync
from fedimb.tracking.sender import _CODE, Sender, sender_of
from tracking.conftest import Folder, runs

LONG_S = 240.0  # for a machine that is busy; nothing waits that long


def test_runs_are_sent_whole_while_the_command_goes_on(folder, uri, points, tmp_path, caplog):
    """One finishes, one is cut off, and one has a store that cannot be opened."""
    cut, lost = (Folder(tmp_path / "study" / name, ("fedprox",)) for name in ("cut", "lost"))
    (tmp_path / "file").write_text("")
    sender = Sender()
    os.kill(sender._process.pid, signal.SIGSTOP)
    sender.warm(uri)
    tracker, other = sender.tracker(folder.path, uri, "study"), sender.tracker(cut.path, uri, "study")
    tracker.start()
    other.start()
    sender.tracker(lost.path, f"sqlite:///{tmp_path}/file/mlflow.db", "study").start()
    began = time.monotonic()
    for step in range(3000):  # more than a pipe holds
        folder.append(folder.line(step, test__loss=step / 4))
        tracker.send(force=True)
    assert time.monotonic() - began < LONG_S / 10
    cut.append(cut.line(1, row="fedprox", test__loss=0.5))
    folder.status("finished")
    tracker.finish()
    os.kill(sender._process.pid, signal.SIGCONT)
    with caplog.at_level(logging.WARNING):
        sender.close(LONG_S)
    assert sender._process.returncode == 0
    sent = points(uri)
    assert sent[("fedavg", "test/loss")] == [(step, step / 4) for step in range(3000)]
    assert sent[("fedprox", "test/loss")] == [(1, 0.5)]
    found = {run.data.tags["fedimb.row"]: run.info.status for run in runs(uri)}
    assert found == {"fedavg": "FINISHED", "fedprox": "RUNNING"}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2  # the start and the end of the one
    assert all(f"fedimb track sync {lost.path}" in line for line in said)


def test_nothing_is_lost_when_the_process_is_killed(folder, uri, points, caplog):
    sender = Sender()
    tracker = sender.tracker(folder.path, uri, "study")
    tracker.start()
    sender._process.kill()
    sender._process.wait(LONG_S)
    folder.append(folder.line(1, test__loss=0.5))
    tracker.send(force=True)
    folder.status("finished")
    tracker.finish()
    with caplog.at_level(logging.WARNING):
        sender.close(LONG_S)
    (record,) = caplog.records
    assert f"`fedimb track sync {folder.path}` sends it" in record.getMessage()
    assert sync(folder.path, uri, "study").sent_points == 1
    assert points(uri) == {("fedavg", "test/loss"): [(1, 0.5)]}


def test_the_command_ends_before_mlflow_has_everything(folder, uri, points, caplog):
    sender = Sender()
    tracker = sender.tracker(folder.path, uri, "study")
    tracker.start()
    folder.append(folder.line(1, test__loss=0.5))
    folder.status("finished")
    tracker.finish()
    with caplog.at_level(logging.WARNING):
        sender.close(0)
    (record,) = caplog.records
    assert "still sending" in record.getMessage()
    assert f"fedimb track sync {folder.path}" in record.getMessage()
    assert sender._process.wait(LONG_S) == 0
    assert points(uri) == {("fedavg", "test/loss"): [(1, 0.5)]}
    assert [run.info.status for run in runs(uri)] == ["FINISHED"]


def test_what_a_library_prints_is_no_report(monkeypatch):
    """As MLflow's links to a server's runs, for a user who wants them."""
    noise = "import fedimb.tracking.sender_process as p; p.preload = lambda uri: print('View run', flush=True); "
    monkeypatch.setattr("fedimb.tracking.sender._CODE", _CODE.replace("from fedimb", f"{noise}from fedimb"))
    sender = Sender()
    sender.warm(None)
    sender.close(LONG_S)
    assert sender._process.returncode == 0


@pytest.mark.parametrize("tracking", [{"name": "none"}, {}, None, "mlflow"])
def test_without_tracking_no_process_is_started(tracking, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    with sender_of(tracking, 0) as sender:
        assert sender is None
