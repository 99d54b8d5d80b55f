"""`fedimb run engine=flower` for real, through Flower's SuperLink and its own Ray: minutes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from interrupted import only_run
from safetensors.numpy import load_file
from small_runs import SMALL, launch_in
from warm import CLI

from fedimb.engine.processes import marked
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

WORDS = (*SMALL, "clients.count=4", "rounds=3")
STRAY = """
from fedimb.training.losses.base import RowLoss

class Stray(RowLoss):
    def rows(self, logits, labels):
        raise ValueError("the sensor was unplugged")
"""


def cli(cwd: Path, *words: str, path: Path | None = None) -> "subprocess.Popen[str]":
    """`fedimb` in a process of its own, started in ``cwd``."""
    env = os.environ | ({"PYTHONPATH": str(path) + os.pathsep + os.environ.get("PYTHONPATH", "")} if path else {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", CLI, *words], cwd=cwd, env=env, **pipes)


def assert_nothing_is_left(folder: Path) -> None:
    temp = json.loads((folder / "processes.json").read_text())["temp_dir"]
    assert marked(temp) == []
    assert not os.path.exists(temp)


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    return launch_in(tmp_path_factory.mktemp("inline"), *WORDS, "engine=inline")


def assert_agrees(folder: Path, inline: RunResult) -> None:
    result = RunResult.read(folder)
    assert result.confusion.tolist() == inline.confusion.tolist()
    assert (result.up_bytes, result.down_bytes) == (inline.up_bytes, inline.down_bytes)
    here, there = (load_file(f / "artifacts" / "model" / "model.safetensors") for f in (folder, inline.folder))
    assert here.keys() == there.keys()
    for name in here:
        assert np.abs(here[name] - there[name]).max() <= 1e-5, name


def test_flwr_run_agrees_with_inline_and_tells_mlflow(tmp_path, inline, template):
    shutil.copy(template, tmp_path / "study.db")
    run = cli(tmp_path, "run", *WORDS, "tracking=mlflow", "tracking.uri=sqlite:///study.db", "engine=flower")
    out, error = run.communicate()
    assert run.returncode == 0, error
    folder = only_run(tmp_path)
    assert str(folder) in out
    assert_agrees(folder, inline)
    assert_nothing_is_left(folder)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/study.db")
    (row,) = client.search_runs([client.get_experiment_by_name("default").experiment_id])
    assert row.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(row.info.run_id, "test/macro_recall")] == [1, 2, 3]


def test_a_client_that_raises_fails_the_run_and_is_named(tmp_path):
    package = tmp_path / "package"
    info = package / "stray-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stray\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fedimb.loss]\nstray = stray_loss:Stray\n")
    (package / "stray_loss.py").write_text(STRAY)
    (tmp_path / "groups" / "loss").mkdir(parents=True)
    (tmp_path / "groups" / "loss" / "stray.yaml").write_text("name: stray\n")
    words = ("run", "--config-dir", str(tmp_path / "groups"), *WORDS, "loss=stray", "engine=flower")
    run = cli(tmp_path, *words, path=package)
    _, error = run.communicate()
    assert run.returncode == 1, error
    folder = only_run(tmp_path)
    for said in ("client 0: ", "ValueError", "the sensor was unplugged", f"fedimb run --resume {folder}"):
        assert said in error
    status = RunFolder(folder).read_json("status.json")
    assert status["status"] == "failed"
    assert "the sensor was unplugged" in status["reason"]
    assert_nothing_is_left(folder)


def test_a_killed_launcher_is_cleaned_up_after_and_its_run_resumed(tmp_path, inline):
    run = cli(tmp_path, "run", *WORDS, "engine=flower")
    while not (list(tmp_path.glob("runs/default/*/metrics.jsonl")) or run.poll() is not None):
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    run.communicate()
    folder = only_run(tmp_path)
    left = json.loads((folder / "processes.json").read_text())
    assert left["driver"].keys() == {str(run.pid)}, "the launcher is what a resume must not find alive"
    assert marked(left["temp_dir"]), "Flower goes on without its launcher"
    again = cli(tmp_path, "run", "--resume", str(folder))
    _, error = again.communicate()
    assert again.returncode == 0, error
    assert "that the killed run had left behind" in error
    assert marked(left["temp_dir"]) == []
    assert not os.path.exists(left["temp_dir"])
    assert_agrees(folder, inline)
    assert_nothing_is_left(folder)
