"""Killed at any moment, a run resumes to the same result as an uninterrupted one; MLflow shows each step once."""

import json
import os
import shutil
from pathlib import Path

import killing
import pytest
from interrupted import only_run

from fedimb.errors import FedimbError
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.launch import resume

OVERRIDES = [
    "strategy=remember",
    "engine=inline",
    "data.n_max=60",
    "clients.count=4",
    "rounds=6",
    "local.epochs=1",
    "aggregator=fedadam",
    "loss=balanced_softmax",
    "evaluation.last_k=2",
    "evaluation.bootstrap=50",
]


def facts(folder: Path) -> tuple[bytes, list, dict]:
    """What must not depend on a kill: weights, every metric but times, headline results."""
    lines = []
    for line in RunFolder(folder).metrics():
        metrics = {k: v for k, v in line["metrics"].items() if not k.startswith("time/")}
        lines.append((line["row"], line["step"], metrics))
    result = json.loads((folder / "result.json").read_text())
    kept = {k: result[k] for k in ("rows", "up_bytes", "down_bytes", "rounds", "failed_replies")}
    return (folder / "artifacts" / "model" / "model.safetensors").read_bytes(), lines, kept


@pytest.fixture(scope="module")
def reference(warm, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("reference")
    assert killing.run(warm, [*OVERRIDES, "tracking=none"], cwd) == 0
    return facts(only_run(cwd))


def mlflow_points(cwd: Path, folder: Path) -> dict[str, list[int]]:
    """Steps of every metric in MLflow, for the run's one row."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{cwd}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("default")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    return {key: [m.step for m in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}


def check(warm, point, count, cwd, reference, template=None):
    mlflow = template is not None
    if mlflow:
        (cwd / "runs").mkdir()
        shutil.copy(template, cwd / "runs" / "mlflow.db")
    code = killing.run(warm, OVERRIDES + ([] if mlflow else ["tracking=none"]), cwd, point, count)
    assert code == -9, f"the run passed '{point}' fewer than {count} times"
    folder = only_run(cwd)
    assert killing.resume(warm, folder, cwd) == 0
    assert RunFolder(folder).status() == "finished"
    assert facts(folder) == reference
    if mlflow:
        for key, steps in mlflow_points(cwd, folder).items():
            assert len(steps) == len(set(steps)), f"{key} is in MLflow twice for a step"
            if key == "test/macro_recall":
                assert sorted(steps) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("point", "count"), [("query", 6), ("state", 13), ("metrics", 3), ("after_checkpoint", 5), ("result", 1)]
)
def test_killed_and_resumed_equals_uninterrupted(warm, point, count, tmp_path, reference, template):
    check(warm, point, count, tmp_path, reference, template if point in ("metrics", "after_checkpoint") else None)


@pytest.mark.slow
@pytest.mark.parametrize(("point", "count"), killing.seeded_points(seed=20, number=30))
def test_thirty_seeded_kills(warm, point, count, tmp_path, reference, template):
    check(warm, point, count, tmp_path, reference, template)


def test_a_run_killed_twice(warm, tmp_path, reference):
    assert killing.run(warm, [*OVERRIDES, "tracking=none"], tmp_path, "train", 9) == -9
    folder = only_run(tmp_path)
    assert killing.resume(warm, folder, tmp_path, "checkpoint", 2) == -9
    assert killing.resume(warm, folder, tmp_path) == 0
    assert facts(folder) == reference


def test_the_test_can_fail(warm, tmp_path, reference):
    """Without the client state of the checkpoint the result would differ: the comparison sees it."""
    assert killing.run(warm, [*OVERRIDES, "tracking=none", "strategy.remember.strength=0.2"], tmp_path) == 0
    assert facts(only_run(tmp_path)) != reference


def test_lost_client_state_is_said_before_any_work(warm, tmp_path):
    assert killing.run(warm, [*OVERRIDES, "tracking=none"], tmp_path, "train", 9) == -9
    folder = only_run(tmp_path)
    shutil.rmtree(folder / "clients")
    before = (folder / "metrics.jsonl").read_bytes()
    done = warm(tmp_path, f"import killing; killing.go_on({str(folder)!r})")
    assert done.returncode == 1
    assert "state_lost: client 0 has no state" in done.stderr
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_two_resumes_do_not_collide(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    holder = RunFolder(tmp_path)
    holder.lock()
    with pytest.raises(FedimbError, match=f"in use by process {os.getpid()}"):
        resume(tmp_path)
    holder.unlock()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FedimbError, match=r"no config\.json"):
        resume(tmp_path)
