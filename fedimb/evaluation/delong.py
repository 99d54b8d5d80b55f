"""DeLong's test: whether two models have the same AUROC on the same test rows.

DeLong, DeLong and Clarke-Pearson (1988, Biometrics 44, 837), by the midranks of Sun and Xu (2014, IEEE SPL 21, 1389).
The test holds both trained models fixed and varies the test rows; `fedimb.evaluation.significance` varies the seed.

Rows of one patient are not independent. With ``units`` (patients) the variance is Obuchowski's (1997, Biometrics 53,
567), which is DeLong's where every patient has one row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.evaluation.ratios import Floats

Bools = NDArray[np.bool_]
Units = NDArray[np.int64]


@dataclass(frozen=True)
class AurocTest:
    """AUROC of two models on the same rows, one class against the rest; differences are A - B. NaN if undefined.

    Attributes:
        positives, negatives: rows of the class, and the others.
        units: rows (or patients) on the smaller side, which the normal approximation rests on: with 3, 5, 10 rows of a
            class beside 150 others it called equal models different at .05 in up to 13, 10, 5 % of cases.
        auroc_a, auroc_b: areas under the ROC curves, ties counting half.
        difference: auroc_a - auroc_b.
        low, high: its Wald interval at the level asked for.
        p: two-sided, normal approximation. 1 if the two models rank the rows alike. NaN if the areas differ and their
            variance is 0 (one model separates the class completely, the other ranks no row differently): there is
            then no standard error to test with.
        variance_a, variance_b, covariance: of the two areas; the covariance is what makes the test a paired one.
    """

    positives: int
    negatives: int
    units: int = 0
    auroc_a: float = math.nan
    auroc_b: float = math.nan
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    variance_a: float = math.nan
    variance_b: float = math.nan
    covariance: float = math.nan


def delong(
    positive: ArrayLike, a: ArrayLike, b: ArrayLike, units: ArrayLike | None = None, level: float = 0.95
) -> AurocTest:
    """Test whether two models' scores have the same area under the ROC curve on the same rows.

    Args:
        positive: whether each row belongs to the class, bool [n].
        a, b: the two models' scores for the class, [n]; only their order matters.
        units: integers [n], rows with the same number are of the same patient; None: every row is on its own.
        level: confidence level of the interval.

    Returns:
        the areas, their covariance and the test; NaN with fewer than two positive or two negative units, or with a
        score that is not finite.

    Raises:
        ValueError: other shapes, or a level outside (0, 1).

    Example:
        >>> sick = np.array([True, True, True, False, False, False])
        >>> found = delong(sick, a=[0.9, 0.8, 0.3, 0.4, 0.2, 0.1], b=[0.6, 0.2, 0.4, 0.5, 0.3, 0.1])
        >>> round(found.auroc_a, 3), round(found.auroc_b, 3)
        (0.889, 0.667)
    """
    yes, first, second = np.asarray(positive, np.bool_), np.asarray(a, np.float64), np.asarray(b, np.float64)
    if yes.ndim != 1 or not yes.shape == first.shape == second.shape:
        raise ValueError(f"one flag and two scores per row, not {yes.shape}, {first.shape}, {second.shape}")
    check_level(level)
    owner, _ = number_units(units, len(yes))
    m, n = int(yes.sum()), int((~yes).sum())
    if not (m and n and np.isfinite(first).all() and np.isfinite(second).all()):
        return AurocTest(m, n)
    placements = [_placements(yes, first), _placements(yes, second)]
    areas = [float(one[yes].mean()) for one in placements]
    groups = [np.unique(owner[side]).size for side in (yes, ~yes)]
    if min(groups) < 2:
        return AurocTest(m, n, min(groups), areas[0], areas[1], areas[0] - areas[1])
    centred = [one - area for one, area in zip(placements, areas, strict=True)]
    centred.append(centred[0] - centred[1])  # exactly 0 for two models that rank alike, unlike va + vb - 2 cov
    sums = [_unit_sums(yes, owner, one) for one in centred]
    difference = areas[0] - areas[1]
    spread = _covariance(sums[2], sums[2], groups, m, n)
    low, high, p = math.nan, math.nan, math.nan
    if spread > 0:
        from scipy.special import ndtr, ndtri

        half = float(ndtri(0.5 + level / 2)) * math.sqrt(spread)
        low, high, p = difference - half, difference + half, float(2 * ndtr(-abs(difference) / math.sqrt(spread)))
    elif difference == 0:
        low, high, p = 0.0, 0.0, 1.0
    variances = [_covariance(sums[i], sums[j], groups, m, n) for i, j in ((0, 0), (1, 1), (0, 1))]
    return AurocTest(m, n, min(groups), areas[0], areas[1], difference, low, high, p, *variances)


def _placements(yes: Bools, scores: Floats) -> Floats:
    """For each row the share of the other side's rows on the right side of it, ties counting half, [n]: DeLong's V10 of
    the positive rows and V01 of the negative ones, from midranks."""
    from scipy.stats import rankdata

    m, n = int(yes.sum()), int((~yes).sum())
    ranks, found = rankdata(scores), np.empty(len(scores))
    found[yes] = (ranks[yes] - rankdata(scores[yes])) / n
    found[~yes] = 1 - (ranks[~yes] - rankdata(scores[~yes])) / m
    return found


def _unit_sums(yes: Bools, owner: Units, centred: Floats) -> tuple[Floats, Floats]:
    """Sum over each unit's positive and each unit's negative rows, [units] each."""
    count = int(owner.max()) + 1
    found, lost = (np.bincount(owner[side], centred[side], count) for side in (yes, ~yes))
    return np.asarray(found, np.float64), np.asarray(lost, np.float64)


def _covariance(a: tuple[Floats, Floats], b: tuple[Floats, Floats], groups: Sequence[int], m: int, n: int) -> float:
    """Obuchowski's covariance of two areas: DeLong's where each unit has one row, as no unit is on both sides then."""
    s10 = groups[0] / (groups[0] - 1) / m * float(a[0] @ b[0])
    s01 = groups[1] / (groups[1] - 1) / n * float(a[1] @ b[1])
    total = len(a[0])
    both = total / (total - 1) * (float(a[0] @ b[1]) + float(a[1] @ b[0])) / (m * n)
    return s10 / m + s01 / n + both


def number_units(units: ArrayLike | None, rows: int) -> tuple[Units, bool]:
    """Units numbered from 0, int64 [rows], and whether each row is on its own."""
    if units is None:
        return np.arange(rows, dtype=np.int64), True
    given = np.asarray(units)
    if given.shape != (rows,):
        raise ValueError(f"units must be one integer per row, [{rows}]; got {given.shape}")
    _, owner = np.unique(given, return_inverse=True)
    owner = owner.astype(np.int64)
    return owner, bool(rows == 0 or int(owner.max()) + 1 == rows)


def check_level(level: float) -> None:
    """Raise ValueError unless a confidence level is between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as .95; got {level}")
