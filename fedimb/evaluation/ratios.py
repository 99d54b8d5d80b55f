"""Ratios that may be undefined, and means over the defined ones: the building blocks of all scores."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def ratio(top: ArrayLike, bottom: ArrayLike) -> Floats:
    """top / bottom in float64, NaN if bottom is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def mean_defined(values: Floats) -> Floats:
    """Mean of the last axis over entries that are not NaN; NaN if there are none."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def minority_ids(minority: Sequence[int], n_classes: int) -> list[int]:
    """The minority's class ids as a list.

    Raises:
        ValueError: one outside 0..C-1, or given twice.
    """
    rare = [int(c) for c in minority]
    if wrong := [c for c in rare if not 0 <= c < n_classes]:
        raise ValueError(f"minority class {wrong[0]} does not exist; class ids go from 0 to {n_classes - 1}")
    if len(set(rare)) != len(rare):
        raise ValueError(f"minority classes {rare} contain a class twice: each counts once in the mean")
    return rare


def percentiles(point: float, draws: Floats, level: float) -> tuple[float, float]:
    """(low, high) of the draws that are not NaN; NaN, NaN if the score itself, ``point``, is NaN."""
    defined = draws[~np.isnan(draws)]
    if np.isnan(point) or defined.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
