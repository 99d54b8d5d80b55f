"""Many methods over many settings: mean ranks, Friedman's test, Nemenyi's critical difference.

Friedman (1937) and Nemenyi (1963), as used by Demšar (JMLR 7, 2006) to compare classifiers. The samples are settings,
never seeds: seeds of one setting are not independent problems, so a setting counts once, by its mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.evaluation.ratios import Floats

LEAST_SETTINGS = 2
LEAST_METHODS = 3


@dataclass(frozen=True)
class Ranks:
    """Ranks of methods over settings. With too few of either, ``note`` gives the reason and numbers are NaN.

    Attributes:
        methods: names, in the order given; the fields below follow it.
        settings: number of settings (N).
        mean_ranks: [k] float64, 1 is best; equal scores share their ranks.
        chi2, p: Friedman's test that all methods rank equally (chi-square approximation, corrected for ties).
        critical_difference: mean ranks that differ by less are not significantly different at ``alpha`` (Nemenyi).
        pairwise: [k, k] float64, Nemenyi's p for every pair of methods, 1 on the diagonal.
        groups: largest sets of methods within one critical difference of each other, best first; may overlap.
        alpha: level of the critical difference.
        note: why there are no numbers, or ``""``.
    """

    methods: tuple[str, ...]
    settings: int
    mean_ranks: Floats
    chi2: float
    p: float
    critical_difference: float
    pairwise: Floats
    groups: tuple[tuple[str, ...], ...]
    alpha: float
    note: str = ""


def friedman(scores: ArrayLike, methods: Sequence[str], alpha: float = 0.05, lower_is_better: bool = False) -> Ranks:
    """Rank methods in every setting and test whether the ranks differ.

    Args:
        scores: [settings, methods], one score each (the mean over seeds); NaN for a method without one, which ranks
            last in that setting, so that failing is never better than losing.
        methods: names, shape [methods].
        alpha: level of the critical difference.
        lower_is_better: rank 1 is the lowest score.

    Raises:
        ValueError: scores of another shape, names that repeat, alpha outside (0, 1).
    """
    table = np.asarray(scores, np.float64)
    names = tuple(methods)
    if table.ndim != 2 or table.shape[1] != len(names) or len(set(names)) != len(names):
        raise ValueError(f"friedman needs scores [settings, methods] and as many different names; got {table.shape}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, such as .05; got {alpha}")
    count, k = table.shape
    if count < LEAST_SETTINGS or k < LEAST_METHODS:
        note = (
            f"ranks need at least {LEAST_SETTINGS} settings and {LEAST_METHODS} rows; got {count} and {k}: "
            "read the comparisons within each setting"
        )
        empty, square = np.full(k, math.nan), np.full((k, k), math.nan)
        return Ranks(names, count, empty, math.nan, math.nan, math.nan, square, (), alpha, note)
    ranks = rank_rows(table if lower_is_better else -table)
    mean_ranks = ranks.mean(0)
    chi2, p = _test(ranks)
    critical = critical_difference(k, count, alpha)
    return Ranks(
        names, count, mean_ranks, chi2, p, critical, _nemenyi(ranks), _groups(names, mean_ranks, critical), alpha
    )


def rank_rows(table: Floats) -> Floats:
    """Ranks from the lowest (1) within each row of [settings, methods]; values equal to 12 digits share a rank, NaN
    comes last."""
    from scipy.stats import rankdata

    finite = np.isfinite(table)
    largest = np.abs(np.where(finite, table, 0.0)).max(1, keepdims=True)
    # Equal means that are summed in a different order differ in the 16th digit.
    digits = np.round(table / np.where(largest > 0, largest, 1.0), 12)
    return np.asarray(rankdata(np.where(finite, digits, np.inf), axis=1))


def critical_difference(methods: int, settings: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks, q_alpha sqrt(k (k + 1) / (6 N)) (Demšar 2006, section 3.2.2).

    Args:
        methods: k, at least 2.
        settings: N, at least 1; settings, not seeds.
        alpha: level.
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * settings))


def _test(ranks: Floats) -> tuple[float, float]:
    from scipy.stats import friedmanchisquare

    if (np.ptp(ranks, axis=1) == 0).all():  # every method equal everywhere: 0 / 0
        return math.nan, math.nan
    found = friedmanchisquare(*ranks.T)
    return float(found.statistic), float(found.pvalue)


def _nemenyi(ranks: Floats) -> Floats:
    from scikit_posthocs import posthoc_nemenyi_friedman

    return np.asarray(posthoc_nemenyi_friedman(ranks), np.float64)


def _groups(names: tuple[str, ...], mean_ranks: Floats, critical: float) -> tuple[tuple[str, ...], ...]:
    """Maximal runs of methods in rank order that span less than the critical difference."""
    order: NDArray[np.intp] = np.argsort(mean_ranks, kind="stable")
    found: list[tuple[str, ...]] = []
    reached = 0
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and mean_ranks[order[end]] - mean_ranks[order[start]] < critical:
            end += 1
        if end - start > 1 and end > reached:
            found.append(tuple(names[i] for i in order[start:end]))
            reached = end
    return tuple(found)
