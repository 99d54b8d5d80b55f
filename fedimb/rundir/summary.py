"""Figures of a whole run, from its logged metrics: summary metrics and costs."""

import math

import numpy as np

from fedimb.contracts.platform import REPLACED
from fedimb.data.federation import Federation
from fedimb.errors import FedimbError
from fedimb.plain import JsonObject
from fedimb.rundir.folder import RunFolder


def last_k_means(folder: RunFolder, row: str, k: int) -> tuple[dict[str, float], dict[str, float]]:
    """(mean of the last k evaluated rounds, final round) of a row's ``test/`` scores, per-class recall excluded.

    A score that is undefined (NaN) in any of the k rounds stays NaN: neither a silent zero nor a silent omission. If
    the server replaced the weights, earlier rounds belong to another model and do not count.
    """
    own = [line["metrics"] for line in folder.metrics() if line["row"] == row]
    scored = [metrics for metrics in own if "test/macro_recall" in metrics]
    scored = scored[max((i for i, metrics in enumerate(scored) if REPLACED in metrics), default=0) :]
    if not scored:
        raise FedimbError(f"{folder.path} has no evaluated round of '{row}': set evaluation.every to at most rounds")
    keys = [key for key in scored[-1] if key.startswith("test/") and not key.startswith("test/recall/")]

    def value(line: JsonObject, key: str) -> float:
        return math.nan if line[key] is None else float(line[key])

    mean = {key[5:]: float(np.mean([value(line, key) for line in scored[-k:]])) for key in keys}
    final = {key[5:]: value(scored[-1], key) for key in keys}
    return mean, final


def cost(folder: RunFolder, row: str, federation: Federation) -> dict[str, float]:
    """The costs of a whole run (see `RunResult`). They are the same for all calibrations: ``row`` is any of them."""
    lines = [line["metrics"] for line in folder.metrics() if line["row"] == row]
    logged = [value for line in lines if (value := line.get("data/labelled")) is not None]
    held = int(federation.train_sizes.sum() + federation.validation.sizes.sum())
    return {
        "client_seconds": math.fsum(line.get("time/client_s") or 0.0 for line in lines),
        "steps": int(sum(line.get("train/steps") or 0 for line in lines)),
        "labels": int(logged[-1]) if logged else held,
    }
