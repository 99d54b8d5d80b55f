"""Contrasts between rows over data sets, by a linear mixed model: data sets are a sample, and so are their partitions.

    score = row + data set + row x data set + partition within data set + error

Rows are fixed, the rest is random, fitted by restricted maximum likelihood (Laird and Ware 1982; statsmodels'
`MixedLM`). What a contrast is uncertain about is how much rows differ from data set to data set, so seeds are averaged
before, and its degrees of freedom are those of the data sets. Each contrast is fitted on its two rows: rows differ in
how much they vary from data set to data set, and a variance common to all would make a contrast of two similar rows
as uncertain as one of two different rows. In balanced data it is the paired t test over the data sets' means, unless
REML finds a variance of 0; where the fit fails, or both rows differ by the same everywhere, it is that test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.errors import ConfigError
from fedimb.evaluation.ratios import Floats

_DIGITS = 12  # equal means that are summed in a different order differ in the 16th digit
MIXED, PAIRED = "mixed model", "paired t test over data sets"


@dataclass(frozen=True)
class Effect:
    """The difference of two rows over data sets; NaN if undefined.

    Attributes:
        sets: data sets.
        difference: first row - second row, in the unit of the score.
        low, high: its t interval.
        p: two-sided p of no difference.
        p_equal: p of a difference outside the margin: the larger of two one-sided t tests.
        method: `MIXED` or `PAIRED`.
    """

    sets: int
    difference: float
    low: float
    high: float
    p: float
    p_equal: float
    method: str


def mixed_contrasts(
    scores: ArrayLike,
    data_sets: Sequence[str],
    partitions: Sequence[str],
    rows: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    margin: float,
    level: float = 0.95,
) -> list[Effect]:
    """Compare pairs of rows over data sets.

    Args:
        scores: [n] float64, finite: the mean over seeds of a row in a partition of a data set.
        data_sets, partitions, rows: what each is of, shape [n]; every row in every partition, once.
        pairs: rows to compare.
        margin: smaller differences do not matter, in the unit of the score.
        level: confidence level of the intervals.

    Returns:
        an effect per pair, first - second.

    Raises:
        ConfigError: statsmodels is not installed.
        ValueError: a row that is missing in a partition or given twice, a score that is not finite, other shapes.
    """
    y = np.asarray(scores, np.float64)
    names = list(dict.fromkeys(rows))
    cells = set(zip(data_sets, partitions, rows, strict=True))
    places = {(s, p) for s, p, _ in cells}
    if y.shape != (len(rows),) or not np.isfinite(y).all() or len(cells) < len(rows):
        raise ValueError("mixed_contrasts needs one finite score per data set, partition and row")
    if len(cells) != len(places) * len(names):
        raise ValueError("mixed_contrasts needs every row in every partition")
    sets = len(set(data_sets))
    if sets < 2:
        nan = math.nan
        return [Effect(sets, _gap(y, rows, pair), nan, nan, nan, nan, PAIRED) for pair in pairs]
    return [_contrast(y, data_sets, partitions, rows, pair, margin, level) for pair in pairs]


def _contrast(
    y: Floats,
    data_sets: Sequence[str],
    partitions: Sequence[str],
    rows: Sequence[str],
    pair: tuple[str, str],
    margin: float,
    level: float,
) -> Effect:
    """One contrast, fitted on its two rows alone."""
    own = [at for at, row in enumerate(rows) if row in pair]
    scores, sets = y[own], [data_sets[at] for at in own]
    is_first = [int(rows[at] == pair[0]) for at in own]
    paired = _paired(scores, sets, [rows[at] for at in own], pair, margin, level)
    if paired.low == paired.high:  # the same difference everywhere: no variance to fit
        return paired
    fitted = _fit(scores, sets, [partitions[at] for at in own], is_first, 2)
    if fitted is None:
        return paired
    means, covariance = fitted
    error = math.sqrt(max(0.0, float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])))
    return _effect(paired.sets, float(means[1] - means[0]), error, margin, level, MIXED)


def _fit(
    y: Floats, data_sets: Sequence[str], partitions: Sequence[str], row: Sequence[int], k: int
) -> tuple[Floats, Floats] | None:
    """(mean of each row [k], their covariance [k, k]) by REML; None if the fit fails."""
    try:
        from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec
    except ImportError:
        raise ConfigError("contrasts over data sets need statsmodels: pip install 'fedimb[sim]'") from None
    import warnings

    scale = float(y.std())
    if scale == 0:
        return None
    scaled = (y - y.mean()) / scale  # recalls have variances near 1e-4, where the optimiser stops early
    order = list(dict.fromkeys(data_sets))
    members = [np.flatnonzero([one == data_set for one in data_sets]) for data_set in order]
    named = np.array(partitions)
    parts: dict[str, list[Floats]] = {}
    if any(len(set(named[own])) > 1 for own in members):  # with one partition each, row x data set is the error
        parts = {
            "row x data set": [_indicators(np.asarray(row)[own]) for own in members],
            "partition": [_indicators(named[own]) for own in members],
        }
    columns = [[[f"{name} {at}" for at in range(one.shape[1])] for one in each] for name, each in parts.items()]
    components = VCSpec(list(parts), columns, list(parts.values())) if parts else None
    exog = np.eye(k)[list(row)]
    model = MixedLM(scaled, exog, groups=np.array(data_sets), exog_re=np.ones((len(y), 1)), exog_vc=components)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a component of 0 is a result, not a failure
        try:
            fitted = model.fit(reml=True, method=["bfgs", "powell"])
        except (np.linalg.LinAlgError, ValueError):
            return None
    between, within = float(np.asarray(fitted.cov_re)[0, 0]), float(fitted.scale)
    found = [between, within, *np.asarray(fitted.vcomp, np.float64)]
    if not fitted.converged or not np.isfinite(found).all() or within <= 0:
        return None
    information = np.zeros((k, k))
    weighted = np.zeros(k)
    for at, own in enumerate(members):
        covariance = within * np.eye(len(own)) + between
        for variance, each in zip(found[2:], parts.values(), strict=True):
            covariance += variance * each[at] @ each[at].T
        solved = np.linalg.solve(covariance, np.column_stack([exog[own], scaled[own]]))
        information += exog[own].T @ solved[:, :-1]
        weighted += exog[own].T @ solved[:, -1]
    inverse: Floats = np.asarray(np.linalg.inv(information), np.float64)
    means: Floats = inverse @ weighted * scale + y.mean()
    return means, inverse * scale**2


def _indicators(values: NDArray[np.generic]) -> Floats:
    """[n] -> [n, different values] of 0 and 1."""
    return np.asarray(values[:, None] == np.unique(values)[None, :], np.float64)


def _gap(y: Floats, rows: Sequence[str], pair: tuple[str, str]) -> float:
    first, second = (float(np.mean([v for v, row in zip(y, rows, strict=True) if row == name])) for name in pair)
    return first - second


def _paired(
    y: Floats, data_sets: Sequence[str], rows: Sequence[str], pair: tuple[str, str], margin: float, level: float
) -> Effect:
    gaps = []
    for data_set in dict.fromkeys(data_sets):
        own = [at for at, one in enumerate(data_sets) if one == data_set]
        gaps.append(_gap(y[own], [rows[at] for at in own], pair))
    differences = np.round(gaps, _DIGITS)
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(gaps)) if np.ptp(differences) else 0.0
    return _effect(len(gaps), float(np.mean(differences)), error, margin, level, PAIRED)


def _effect(sets: int, difference: float, error: float, margin: float, level: float, method: str) -> Effect:
    """Student's t with ``sets`` - 1 degrees of freedom; without any spread the difference is certain."""
    from scipy.special import stdtr, stdtrit

    freedom = sets - 1
    if error == 0:
        return Effect(
            sets, difference, difference, difference, float(difference == 0), float(abs(difference) >= margin), method
        )
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    above = float(stdtr(freedom, (difference - margin) / error))
    below = float(stdtr(freedom, -(difference + margin) / error))
    return Effect(sets, difference, difference - half, difference + half, p, max(above, below), method)
