"""Run folders and addresses for the tracking tests."""

import json
import shutil
from pathlib import Path

import pytest

from fedimb.tracking.store import connect


class Folder:
    """A run folder as the run writes it."""

    def __init__(self, path: Path, labels: tuple[str, ...]) -> None:
        self.path = path
        path.mkdir(parents=True)
        rows = [
            {
                "label": label,
                "tags": {"fedimb.strategy": label, "fedimb.seed": "3"},
                "params": {"rounds": 4, "local.lr": 0.1, "name": None},
            }
            for label in labels
        ]
        (path / "rows.json").write_text(json.dumps(rows))
        (path / "config.json").write_text(json.dumps({"seed": 3, "study": "study", "tracking": {"uri": None}}))
        self.status("running")

    def line(self, step: int, row: str = "fedavg", time: int | None = None, **metrics: float | None) -> str:
        values = {key.replace("__", "/"): value for key, value in metrics.items()}
        stamp = 1_700_000_000_000 + step if time is None else time
        return json.dumps({"row": row, "step": step, "time": stamp, "metrics": values}) + "\n"

    def append(self, *lines: str) -> None:
        with (self.path / "metrics.jsonl").open("a") as handle:
            handle.writelines(lines)

    def status(self, status: str) -> None:
        (self.path / "status.json").write_text(json.dumps({"status": status}))


def runs(uri, experiment="study"):
    """The runs of an experiment."""
    client = connect(uri)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


@pytest.fixture
def uri(template, tmp_path):
    return f"sqlite:///{shutil.copy(template, tmp_path / 'mlflow.db')}"


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "study" / "run", ("fedavg",))


@pytest.fixture
def points():
    """Points of a store: (label, metric) -> [(step, value), ...] in order of step, duplicates kept."""

    def read(uri: str, experiment: str = "study") -> dict[tuple[str, str], list[tuple[int, float]]]:
        client = connect(uri)
        found = client.get_experiment_by_name(experiment)
        read: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for run in client.search_runs([found.experiment_id]):
            for name in run.data.metrics:
                history = client.get_metric_history(run.info.run_id, name)
                key = (run.data.tags["fedimb.row"], name)
                assert key not in read, "two runs for one row"
                read[key] = sorted((metric.step, metric.value) for metric in history)
        return read

    return read
