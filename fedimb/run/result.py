"""What a finished run says: headline numbers per row, confusion matrices, the model; written once, read by everyone."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedimb.config.schema import RunConfig
from fedimb.data.federation import Federation
from fedimb.errors import FedimbError
from fedimb.evaluation.confusion import hits_and_support
from fedimb.evaluation.costs import client_accuracies
from fedimb.evaluation.intervals import wilson
from fedimb.evaluation.ratios import mean_defined
from fedimb.run.evaluate import Evaluator
from fedimb.run.folder import RunFolder
from fedimb.run.headline import effort, last_k_means
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
        probability: ``ece``, ``classwise_ece``, ``log_loss``, ``brier``, ``auroc``, ``auprc`` of the final round's
            calibrated probabilities (`fedimb.evaluation.probabilities`).
        auroc, auprc: per class [C], one against the rest, of the same; NaN where undefined.
        worst_client, mean_client, best_client: lowest, mean and highest accuracy to expect at a client by the classes
            it holds (`fedimb.evaluation.costs.client_accuracies`: exact only if clients differ by label mix alone),
            over the clients of which it is defined; NaN where there is none, and where rows have several labels.
        defined_clients: how many those are.

    What a run folder of an earlier version does not hold is empty, NaN or 0.
    """

    label: str
    metrics: dict[str, float]
    final: dict[str, float]
    confusion: np.ndarray
    intervals: dict[str, list[float]]
    recall: list[list[float]]
    probability: dict[str, float] = field(default_factory=dict)
    auroc: list[float] = field(default_factory=list)
    auprc: list[float] = field(default_factory=list)
    worst_client: float = math.nan
    mean_client: float = math.nan
    best_client: float = math.nan
    defined_clients: int = 0


def _clients(matrix: np.ndarray, held: np.ndarray) -> dict[str, float]:
    """The client figures of a `RowResult`, of a matrix [C, C] or [C, 2, 2] and what clients hold [K, C]."""
    expected = client_accuracies(matrix, held) if matrix.ndim == 2 else np.full(len(held), np.nan)
    defined = expected[~np.isnan(expected)]
    return {
        "worst_client": float(defined.min()) if defined.size else math.nan,
        "mean_client": float(mean_defined(expected)),
        "best_client": float(defined.max()) if defined.size else math.nan,
        "defined_clients": int(defined.size),
    }


def write_result(
    folder: RunFolder, config: RunConfig, federation: Federation, evaluator: Evaluator, loop: Loop
) -> None:
    """Write result.json and the artifacts of a finished run."""
    model = loop.model()
    evaluator(model.parameters, model.buffers, loop.view.counts, None)
    rows: list[dict[str, Any]] = []
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
        probability = evaluator.probability(row)
        rows.append({
            "label": row,
            "metrics": mean,
            "final": final,
            "confusion": matrix.tolist(),
            "intervals": intervals,
            "recall": recall,
            "probability": probability.means,
            "auroc": probability.auroc.tolist(),
            "auprc": probability.auprc.tolist(),
            **_clients(matrix, federation.counts),
        })  # fmt: skip
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
            **effort(folder, rows[0]["label"], federation),
            "train_counts": federation.counts.sum(axis=0).tolist(),
            "prior": {
                "counts": None if loop.view.counts is None else loop.view.counts.tolist(),
                "provenance": prior_label(config),
            },
            "class_names": list(federation.class_names),
            "minority": list(federation.minority),
            "task": federation.task,
            "seed": config.seed,
            "privacy": loop.view.ledger.account(loop.progress.privacy) if loop.view.ledger else None,
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
        client_seconds: time that clients trained, added over clients and rounds (queries not counted).
        steps: local optimiser steps, added likewise.
        labels: labelled rows used: what the method last logged as ``data/labelled``, else all that clients hold,
            validation rows included. These three are NaN in a run folder of a version that did not keep them.
        privacy: settings and epsilons of a run with noise on its updates (`fedimb.privacy.ledger`); None without.
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
    client_seconds: float = math.nan
    steps: float = math.nan
    labels: float = math.nan
    privacy: dict[str, float] | None = None

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
            data.get("client_seconds", math.nan),
            data.get("steps", math.nan),
            data.get("labels", math.nan),
            data.get("privacy"),
        )
