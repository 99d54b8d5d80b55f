"""Writes the results of a finished run to its folder: result.json, the confusion matrices, the model."""

import json
import math
from typing import Any

import numpy as np

from fedimb.config.parts import prior_label
from fedimb.data.federation import Federation
from fedimb.evaluation.confusion import hits_and_support
from fedimb.evaluation.costs import client_accuracies
from fedimb.evaluation.intervals import wilson
from fedimb.evaluation.ratios import mean_defined
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.model_file import save_model
from fedimb.rundir.summary import cost, last_k_means
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, numpy_rng
from fedimb.serverapp.evaluate import Evaluator
from fedimb.serverapp.loop import Loop


def _clients(matrix: np.ndarray, held: np.ndarray) -> dict[str, float]:
    """The client figures of a `RowResult`, from a matrix [C, C] or [C, 2, 2] and the clients' class counts [K, C]."""
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
    evaluator(model.parameters, model.buffers, loop.context.counts, None)
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
            **cost(folder, rows[0]["label"], federation),
            "train_counts": federation.counts.sum(axis=0).tolist(),
            "prior": {
                "counts": None if loop.context.counts is None else loop.context.counts.tolist(),
                "provenance": prior_label(config),
            },
            "class_names": list(federation.class_names),
            "minority": list(federation.minority),
            "task": federation.task,
            "seed": config.seed,
            "privacy": loop.context.ledger.account(loop.progress.privacy) if loop.context.ledger else None,
        },
    )
    save_model(evaluator.model, config, federation, folder.path / "artifacts" / "model")
