"""Numbers of a whole run, read off the lines it logged: the headline, and what it took."""

import math

import numpy as np

from fedimb.contracts.platform import REPLACED
from fedimb.data.federation import Federation
from fedimb.errors import FedimbError
from fedimb.plain import JsonObject
from fedimb.rundir.folder import RunFolder


def last_k_means(folder: RunFolder, row: str, k: int) -> tuple[dict[str, float], dict[str, float]]:
    """(mean of the last k evaluated rounds, final round) of a row's ``test/`` scores, per-class recall excluded.

    A score undefined (NaN) in any of the k rounds stays NaN: no silent zero and no silent omission. Where the server
    replaced the weights, rounds before that are of another model and do not count.
    """
    own = [line["metrics"] for line in folder.metrics() if line["row"] == row]
    scored = [metrics for metrics in own if "test/macro_recall" in metrics]
    scored = scored[max((i for i, metrics in enumerate(scored) if REPLACED in metrics), default=0) :]
    if not scored:
        raise FedimbError(f"{folder.path} holds no evaluated round of '{row}'")
    keys = [key for key in scored[-1] if key.startswith("test/") and not key.startswith("test/recall/")]

    def value(line: JsonObject, key: str) -> float:
        return math.nan if line[key] is None else float(line[key])

    mean = {key[5:]: float(np.mean([value(line, key) for line in scored[-k:]])) for key in keys}
    final = {key[5:]: value(scored[-1], key) for key in keys}
    return mean, final


def cost(folder: RunFolder, row: str, federation: Federation) -> dict[str, float]:
    """What the whole run took (see `RunResult`). Calibrations share it: ``row`` is any one of them."""
    lines = [line["metrics"] for line in folder.metrics() if line["row"] == row]
    logged = [value for line in lines if (value := line.get("data/labelled")) is not None]
    held = int(federation.train_sizes.sum() + federation.validation.sizes.sum())
    return {
        "client_seconds": math.fsum(line.get("time/client_s") or 0.0 for line in lines),
        "steps": int(sum(line.get("train/steps") or 0 for line in lines)),
        "labels": int(logged[-1]) if logged else held,
    }
