"""Two models' recall on the same test rows: McNemar's test and a paired bootstrap, per class and in the mean.

McNemar (1947), exact and mid-p (Fagerland, Lydersen and Laake 2013, doi:10.1186/1471-2288-13-91); the bootstrap is
stratified by class, with percentile intervals (Efron 1979). Both hold the trained models fixed and vary the test rows.

Rows of one patient are not independent. With ``units`` (patients) the test exchanges the two models for whole patients,
and the bootstrap draws whole patients.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.evaluation.delong import Bools, Units, check_level, number_units
from fedimb.evaluation.ratios import Floats, mean_defined, minority_ids, percentiles, ratio

_MOST_SUMS = 200_000  # sums of an exact null distribution; above this it is drawn
_DRAWS = 100_000  # draws from the null distribution: p is known to within .001 near .05
_ROUNDING = 1e-12  # below this a weighted sum of 0 and 1 is 0
_CHUNK_CELLS = 4_000_000  # 32 MB of float64 per chunk of resamples


@dataclass(frozen=True)
class RecallTest:
    """Recall of two models on the same rows: of a class, of a mean over classes, or of all rows; always A - B.

    Attributes:
        rows: positive rows.
        only_a, only_b: positive rows that only A, or only B, finds: the rows the test rests on.
        recall_a, recall_b: shares found.
        difference: recall_a - recall_b.
        low, high: percentile interval of the paired bootstrap, stratified by class. A width of 0 says that the models
            agree on all these rows, or differ on all in the same way, not that the difference is certain.
        p: two-sided exact test that each row's (or patient's) two results are exchangeable: McNemar's exact conditional
            test for one class; for a mean over classes the same with every row weighted as in the mean. Never above
            its level.
        mid_p: the same, counting half the probability of the observed result: less conservative, close to its level.
        smallest_p: the smallest p that these discordant rows can reach.
    """

    rows: int
    only_a: int
    only_b: int
    recall_a: float = math.nan
    recall_b: float = math.nan
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    mid_p: float = math.nan
    smallest_p: float = math.nan


@dataclass(frozen=True)
class RecallTests:
    """Result of `recall_tests`.

    Attributes:
        classes: one test per class, in their order; NaN for a class without rows.
        macro, minority: the mean over the classes with rows, and over the minority classes among them.
        overall: all rows (accuracy); None if rows have several labels.
    """

    classes: tuple[RecallTest, ...]
    macro: RecallTest
    minority: RecallTest
    overall: RecallTest | None


def mcnemar(only_a: int, only_b: int) -> tuple[float, float]:
    """McNemar's exact conditional test of discordant pairs, without continuity correction: (p, mid-p), two-sided.

    Args:
        only_a, only_b: pairs in which only A, or only B, is right.

    Raises:
        ValueError: a negative count.

    Example:
        >>> p, mid_p = mcnemar(1, 7)
        >>> round(p, 3), round(mid_p, 3)
        (0.07, 0.039)
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"mcnemar takes counts of at least 0; got {only_a} and {only_b}")
    return _sign_test(np.repeat([1.0, -1.0], [only_a, only_b]), np.random.default_rng(0))


def recall_tests(
    targets: ArrayLike,
    right_a: ArrayLike,
    right_b: ArrayLike,
    minority: Sequence[int],
    rng: np.random.Generator,
    resamples: int = 2000,
    units: ArrayLike | None = None,
    level: float = 0.95,
    several: bool = False,
) -> RecallTests:
    """Compare two models' recall on the same rows, class by class and in the mean.

    Args:
        targets: which classes each row has, bool [n, C].
        right_a, right_b: which of them the model found, bool [n, C]; where targets is False it is ignored.
        minority: ids of the minority classes.
        rng: for the bootstrap, and for null distributions too large to list.
        resamples: of the bootstrap.
        units: integers [n], the same for rows of the same patient; None: every row is on its own.
        level: confidence level of the intervals.
        several: whether rows may have several labels, even if none of these is known to: there is no accuracy then.

    Raises:
        ValueError: other shapes, a minority class that does not exist, resamples below 1, a level outside (0, 1).
    """
    true = np.asarray(targets, np.bool_)
    a, b = np.asarray(right_a, np.bool_), np.asarray(right_b, np.bool_)
    if true.ndim != 2 or not true.shape == a.shape == b.shape:
        raise ValueError(f"targets {true.shape} and results {a.shape}, {b.shape} must all be [n, C]")
    check_level(level)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; got {resamples}")
    support, n_classes = true.sum(0), true.shape[1]
    rare = minority_ids(minority, n_classes)
    means = [_Mean((c,)) for c in range(n_classes)]
    means += [_Mean(tuple(c for c in group if support[c])) for group in (range(n_classes), rare)]
    single = not several and bool((true.sum(1) == 1).all())
    if single:
        means.append(_Mean(tuple(range(n_classes)), pooled=True))
    owner, alone = number_units(units, len(true))
    found_a, found_b, rows = (_class_sums(part, owner, alone) for part in (a & true, b & true, true))
    only = np.stack([(a & ~b & true).sum(0), (b & ~a & true).sum(0)])
    draws = _bootstrap(found_a, found_b, rows, means, resamples, rng)
    given = (found_a, found_b, only, support)
    found = [_recall_test(mean, *given, draw, level, rng) for mean, draw in zip(means, draws, strict=True)]
    macro, minor = found[n_classes : n_classes + 2]
    return RecallTests(tuple(found[:n_classes]), macro, minor, found[-1] if single else None)


@dataclass(frozen=True)
class _Mean:
    """A mean of recalls: over ``classes``, or over all their rows if ``pooled``."""

    classes: tuple[int, ...]
    pooled: bool = False

    def weights(self, support: NDArray[np.int64]) -> Floats:
        """What a row of each class counts, [C]."""
        own = list(self.classes)
        weights = np.zeros(len(support))
        weights[own] = 1 / support[own].sum() if self.pooled else 1 / (len(own) * support[own])
        return weights

    def of(self, gaps: Floats, rows: Floats) -> Floats:
        """The mean's difference in resamples with these gaps and rows of each class, [B, C] each -> [B]."""
        gaps, rows = gaps[:, list(self.classes)], rows[:, list(self.classes)]
        return ratio(gaps.sum(1), rows.sum(1)) if self.pooled else mean_defined(ratio(gaps, rows))


def _recall_test(
    mean: _Mean,
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    only: NDArray[np.int64],
    support: NDArray[np.int64],
    draws: Floats,
    level: float,
    rng: np.random.Generator,
) -> RecallTest:
    """Test one mean, from the rows that A and B find of each unit, int64 [units, C] each, and those found by one of
    them only, [2, C]."""
    own = list(mean.classes)
    rows = int(support[own].sum())
    if not rows:
        return RecallTest(0, 0, 0)
    weights = mean.weights(support)
    gap = a - b
    per_unit = gap[:, own] @ weights[own]
    p, mid_p = _sign_test(per_unit, rng)
    difference = float(gap.sum(0) @ weights)
    low, high = percentiles(difference, draws, level)
    return RecallTest(
        rows,
        int(only[0, own].sum()),
        int(only[1, own].sum()),
        float(a.sum(0) @ weights),
        float(b.sum(0) @ weights),
        difference,
        low,
        high,
        p,
        mid_p,
        smallest_p=min(1.0, 2.0 ** (1 - int((np.abs(per_unit) > _ROUNDING).sum()))),
    )


def _class_sums(flags: Bools, owner: Units, alone: bool) -> NDArray[np.int64]:
    """Rows of each unit and class, int64 [units, C]."""
    if alone:
        return flags.astype(np.int64)
    count = int(owner.max()) + 1
    return np.stack([np.bincount(owner, column, count) for column in flags.T], axis=1).astype(np.int64)


def _sign_test(values: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """(p, mid-p) of |sum(values)| if the sign of every value is a fair coin: A and B exchanged for whole units.

    Exact while there are few enough distinct sums; otherwise from 100,000 draws, where p is never 0.
    """
    from scipy.stats import binom

    sizes = np.abs(values[np.abs(values) > _ROUNDING])
    if not sizes.size:
        return 1.0, 1.0
    # Sums of equal terms in another order differ in the 16th digit.
    kinds, times = np.unique(np.round(sizes / sizes.max(), 10), return_counts=True)
    observed = abs(float(values.sum())) / float(sizes.max())
    near = 1e-8 * max(1.0, float(sizes.sum() / sizes.max()))
    sums, chances = np.zeros(1), np.ones(1)
    for kind, count in zip(kinds, times, strict=True):
        if len(sums) * (count + 1) > _MOST_SUMS:
            drawn = np.abs(sum(k * (2 * rng.binomial(t, 0.5, _DRAWS) - t) for k, t in zip(kinds, times, strict=True)))
            beyond, equal = int((drawn > observed + near).sum()), int((np.abs(drawn - observed) <= near).sum())
            return (beyond + equal + 1) / (_DRAWS + 1), (beyond + equal / 2 + 0.5) / (_DRAWS + 1)
        steps = np.arange(count + 1)
        reached = np.add.outer(sums, kind * (2 * steps - count)).ravel()
        sums, place = np.unique(np.round(reached, 8), return_inverse=True)
        joint = np.outer(chances, binom.pmf(steps, count, 0.5)).ravel()
        chances = np.asarray(np.bincount(place.ravel(), joint), np.float64)
    beyond_chance = float(chances[np.abs(sums) > observed + near].sum())
    equal_chance = float(chances[np.abs(np.abs(sums) - observed) <= near].sum())
    return min(1.0, beyond_chance + equal_chance), min(1.0, beyond_chance + equal_chance / 2)


def _bootstrap(
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    support: NDArray[np.int64],
    means: Sequence[_Mean],
    resamples: int,
    rng: np.random.Generator,
) -> list[Floats]:
    """Resampled differences of each mean, [resamples] each.

    Units are drawn with replacement within each class: of a unit with several, within its rarest. Those without a known
    class are a group of their own.
    """
    rarest_first = np.lexsort((np.arange(support.shape[1]), support.sum(0)))
    stratum = np.where(support.any(1), rarest_first[(support[:, rarest_first] > 0).argmax(1)], support.shape[1])
    # Mirrored for swapped models: drawn from the side of the model that is right where they first differ.
    differing = np.flatnonzero((a != b).any(1))
    swapped = bool(differing.size) and _first_sign(a[differing[0]] - b[differing[0]]) < 0
    first, second = (b, a) if swapped else (a, b)
    kinds, held = np.unique(np.column_stack([stratum, first, second, support]), axis=0, return_counts=True)
    classes = support.shape[1]
    gap = (kinds[:, 1 : 1 + classes] - kinds[:, 1 + classes : 1 + 2 * classes]).astype(np.float64)
    rows = kinds[:, 1 + 2 * classes :].astype(np.float64)
    groups = [np.flatnonzero(kinds[:, 0] == group) for group in np.unique(kinds[:, 0])]
    parts: list[list[Floats]] = [[] for _ in means]
    size = max(1, _CHUNK_CELLS // max(1, len(kinds)))
    for start in range(0, resamples, size):
        drawn = min(size, resamples - start)
        times = np.zeros((drawn, len(kinds)))
        for group in groups:
            total = held[group].sum()
            times[:, group] = rng.multinomial(total, held[group] / total, size=drawn)
        gaps, counts = times @ gap, times @ rows  # whole numbers far below 2^53: exact
        for part, mean in zip(parts, means, strict=True):
            part.append(mean.of(gaps, counts))
    # + 0.0: no -0
    return [np.concatenate(part) * (-1 if swapped else 1) + 0.0 for part in parts]


def _first_sign(values: NDArray[np.int64]) -> int:
    return int(np.sign(values[np.flatnonzero(values)[0]]))
