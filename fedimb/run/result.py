"""What a finished run says: headline numbers per row, confusion matrices, the model; written once, read by everyone."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedimb.config.schema import RunConfig
from fedimb.data.federation import Federation
from fedimb.errors import FedimbError
from fedimb.evaluation.confusion import hits_and_support
from fedimb.evaluation.intervals import wilson
from fedimb.run.evaluate import Evaluator
from fedimb.run.folder import RunFolder
from fedimb.run.loop import Loop
from fedimb.run.model_file import TrainedModel, load_model, save_model
from fedimb.run.parts import prior_label
from fedimb.seeds import Stream, numpy_rng


@dataclass(frozen=True)
class RowResult:
    """One row of a comparison.

    Attributes:
        label: row label.
        metrics: headline scores, mean of the last k evaluated rounds (``macro_recall``, ``minority_recall``, ...).
        final: the same scores in the final round.
        confusion: final-round matrix [C, C] int64, rows are true classes; [C, 2, 2] (class, true, predicted) where
            rows have several labels.
        intervals: ``name -> [low, high]`` 95 % within-run intervals of the final round (stratified bootstrap).
        recall: per class ``[recall, low, high]`` with Wilson's interval.
    """

    label: str
    metrics: dict[str, float]
    final: dict[str, float]
    confusion: np.ndarray
    intervals: dict[str, list[float]]
    recall: list[list[float]]


def last_k_means(folder: RunFolder, row: str, k: int) -> tuple[dict[str, float], dict[str, float]]:
    """(mean of the last k evaluated rounds, final round) of a row's ``test/`` scores, per-class recall excluded.

    A score undefined (NaN) in any of the k rounds stays NaN: no silent zero and no silent omission.
    """
    own = [line["metrics"] for line in folder.metrics() if line["row"] == row]
    scored = [metrics for metrics in own if "test/macro_recall" in metrics]
    if not scored:
        raise FedimbError(f"{folder.path} holds no evaluated round of '{row}'")
    keys = [key for key in scored[-1] if key.startswith("test/") and not key.startswith("test/recall/")]

    def value(line: dict[str, Any], key: str) -> float:
        return math.nan if line[key] is None else float(line[key])

    mean = {key[5:]: float(np.mean([value(line, key) for line in scored[-k:]])) for key in keys}
    final = {key[5:]: value(scored[-1], key) for key in keys}
    return mean, final


def write_result(
    folder: RunFolder, config: RunConfig, federation: Federation, evaluator: Evaluator, loop: Loop
) -> None:
    """Write result.json and the artifacts of a finished run."""
    model = loop.model()
    evaluator(model.parameters, model.buffers, loop.view.counts, None)
    rows = []
    for row, matrix in evaluator.matrices.items():
        mean, final = last_k_means(folder, row, config.evaluation.last_k)
        intervals: dict[str, list[float]] = {}
        if config.evaluation.bootstrap:
            rng = numpy_rng(config.seed, Stream.BOOTSTRAP)
            drawn = evaluator.intervals(row, config.evaluation.bootstrap, rng)
            intervals = {k: [float(v[0]), float(v[1])] for k, v in drawn.items()}
        hits, support = hits_and_support(matrix)
        low, high = wilson(hits, support)
        recall = [
            [float(h / s) if s else math.nan, float(a), float(b)]
            for h, s, a, b in zip(hits, support, low, high, strict=True)
        ]
        entry = {
            "label": row,
            "metrics": mean,
            "final": final,
            "confusion": matrix.tolist(),
            "intervals": intervals,
            "recall": recall,
        }
        rows.append(entry)
        target = folder.path / "artifacts" / "rows" / row.replace("/", "_")
        target.mkdir(parents=True, exist_ok=True)
        (target / "confusion.json").write_text(
            json.dumps({"class_names": list(federation.class_names), "matrix": matrix.tolist()})
        )
    traffic = loop.exchange.traffic
    folder.write_json(
        "result.json",
        {
            "rows": rows,
            "up_bytes": traffic.total_up,
            "down_bytes": traffic.total_down,
            "seconds": loop.progress.elapsed_s,
            "simulated_wait_s": loop.progress.virtual_s,
            "rounds": loop.progress.server_round,
            "failed_replies": loop.exchange.errors,
            "train_counts": federation.counts.sum(axis=0).tolist(),
            "prior": {
                "counts": None if loop.view.counts is None else loop.view.counts.tolist(),
                "provenance": prior_label(config.prior),
            },
            "class_names": list(federation.class_names),
            "minority": list(federation.minority),
            "task": federation.task,
            "seed": config.seed,
        },
    )
    save_model(evaluator.model, config, federation, folder.path / "artifacts" / "model")


@dataclass(frozen=True)
class RunResult:
    """A finished run, as `fedimb.run` returns it.

    Attributes:
        folder: the run folder.
        rows: one `RowResult` per calibration, in configured order.
        up_bytes, down_bytes: payload over all clients and rounds.
        seconds: wall time of the rounds, engine start excluded.
        train_counts: rows that have each class [C] int64 the federation trains on.
        class_names, minority: names by class id, and the minority class ids.
        seed: run seed.
        prior_counts: [C] float64 counts the class prior is made of, as of the last round; None where no part reads
            any, and in a run folder of a version that did not keep them.
        task: ``multiclass``, or ``multilabel`` where rows have several labels.
    """

    folder: Path
    rows: tuple[RowResult, ...]
    up_bytes: int
    down_bytes: int
    seconds: float
    train_counts: np.ndarray
    class_names: tuple[str, ...]
    minority: tuple[int, ...]
    seed: int
    prior_counts: np.ndarray | None = None
    task: str = "multiclass"

    @property
    def metrics(self) -> dict[str, float]:
        """Headline scores of the first row."""
        return self.rows[0].metrics

    @property
    def confusion(self) -> np.ndarray:
        """Final-round confusion matrix of the first row, [C, C] int64, or [C, 2, 2] (see `RowResult`)."""
        return self.rows[0].confusion

    @property
    def model(self) -> TrainedModel:
        """The trained global model, in eval mode; see `fedimb.run.model_file`."""
        return load_model(self.folder)

    @classmethod
    def read(cls, path: str | Path) -> "RunResult":
        """Read a finished run's folder. Raises FedimbError when it is not finished."""
        folder = RunFolder.open(Path(path))
        data = folder.read_json("result.json")
        if data is None:
            raise FedimbError(f"{path} is not finished (status: {folder.status()}): fedimb run --resume {path}")
        rows = tuple(
            RowResult(**{**row, "confusion": np.array(row["confusion"], dtype=np.int64)}) for row in data["rows"]
        )
        prior = data.get("prior") or {}
        return cls(
            folder.path,
            rows,
            data["up_bytes"],
            data["down_bytes"],
            data["seconds"],
            np.array(data["train_counts"], dtype=np.int64),
            tuple(data["class_names"]),
            tuple(data["minority"]),
            data["seed"],
            None if prior.get("counts") is None else np.array(prior["counts"], dtype=np.float64),
            data.get("task", "multiclass"),
        )
