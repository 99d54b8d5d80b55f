"""A real server, killed while a run sends to it."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from fedimb.errors import FedimbError
from fedimb.tracking.mlflow import MlflowTracker, charts_link, sync
from fedimb.tracking.store import _SYNC_TIMEOUT_S, _TRAINING_TIMEOUT_S


class Server:
    def __init__(self, database: str, folder, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = (folder / "server.log").open("ab")
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--backend-store-uri", database]
        command += ["--artifacts-destination", str(folder / "served")]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, cwd=folder, env=environment, start_new_session=True
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"no server after 120 s: see {self.log.name}")

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


@pytest.fixture
def serve(uri, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []

    def start() -> Server:
        started.append(Server(uri, tmp_path, port))
        started[-1].wait()
        return started[-1]

    yield start
    for server in started:
        server.kill()


def test_a_server_that_is_not_there_warns_once(folder, caplog):
    tracker = MlflowTracker(folder.path, "http://127.0.0.1:9", "study")
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="fedimb"):
        tracker.start()
        folder.append(folder.line(1, a=1.0))
        tracker.send(force=True)
    # a timeout or two, the import of mlflow on a busy machine included; never the patience of a sync
    assert (time.monotonic() - began) / _SYNC_TIMEOUT_S < 0.5
    assert len([record for record in caplog.records if record.name.startswith("fedimb")]) == 1
    with pytest.raises(FedimbError, match="check that it is running"):
        sync(folder.path)


@pytest.mark.slow
def test_a_server_that_never_answers_costs_seconds(folder, caplog):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        tracker = MlflowTracker(folder.path, f"http://127.0.0.1:{mute.getsockname()[1]}", "study")
        began = time.monotonic()
        with caplog.at_level(logging.WARNING, logger="fedimb"):
            tracker.start()
            tracker.send(force=True)
        assert (time.monotonic() - began) / _TRAINING_TIMEOUT_S < 8
        assert len([record for record in caplog.records if record.name.startswith("fedimb")]) == 1


@pytest.mark.slow  # two starts of a server: half a minute alone, minutes on a busy machine
def test_a_server_killed_mid_run_costs_seconds_and_no_point(serve, uri, folder, points, caplog):
    server = serve()
    address = server.url
    (folder.path / "artifacts").mkdir()
    (folder.path / "artifacts" / "model.txt").write_text("weights")
    tracker = MlflowTracker(folder.path, address, "study")
    tracker.start()
    folder.append(folder.line(1, a=0.1, b=None), folder.line(2, a=1 / 3))
    tracker.send(force=True)
    assert points(uri)[("fedavg", "a")] == [(1, 0.1), (2, 1 / 3)]
    command, url = charts_link(address, "study")
    assert command == ""
    assert url.startswith(f"{address}/#/experiments/")

    server.kill()
    folder.append(folder.line(3, a=3.0))
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="fedimb"):
        tracker.send(force=True)
        took = time.monotonic() - began
        tracker._retry_at = 0.0
        tracker.send(force=True)
        warned = [record for record in caplog.records if record.name.startswith("fedimb")]
        assert len(warned) == 1
        assert address in warned[0].message
        assert f"fedimb track sync {folder.path}" in warned[0].message
        folder.status("finished")
        tracker.finish()
    assert took / _TRAINING_TIMEOUT_S < 2.4
    with pytest.raises(FedimbError, match="check that it is running"):
        sync(folder.path)

    serve()
    report = sync(folder.path)
    assert report.sent_points == 1
    assert sync(folder.path).sent_points == 0
    read = points(uri)
    assert read[("fedavg", "a")] == [(1, 0.1), (2, 1 / 3), (3, 3.0)]
    assert len(read[("fedavg", "b")]) == 1
    assert (folder.path.parents[1] / "served").rglob("model.txt").__next__().read_text() == "weights"
