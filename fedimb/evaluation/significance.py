"""Whether two rows of a comparison differ, over the same seeds: effect, interval and tests.

Hodges and Lehmann (1963) for the effect, Wilcoxon (1945) and Pratt (1959) for the test, Holm (1979) over several
comparisons, Schuirmann (1987) for equivalence; tests use SciPy. A large p-value never means that two rows are equal:
for that use the equivalence test with a stated margin.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fedimb.evaluation.ratios import Floats

_DIGITS = 12  # equal means that are summed in a different order differ in the 16th digit
_EXACT_PAIRS = 50  # above this, the normal approximation is as good


@dataclass(frozen=True)
class Paired:
    """Row A against row B over the same seeds; always `a - b`. NaN if undefined.

    Attributes:
        n: pairs with a number on both sides. Effects and p-values use these.
        missing: pairs without (a run diverged or failed). If there are any, no result may be claimed.
        effect: Hodges-Lehmann estimate, the median of the means of all pairs of differences (each also with itself).
        low, high: its distribution-free interval at ``level``; NaN if n is too small to reach the level.
        mean_difference: the mean of the differences.
        p: two-sided Wilcoxon signed-rank test.
        smallest_p: the smallest p that n pairs can reach.
        wins, losses, ties: pairs in which A is better, worse, equal. A run without a number loses to a run with one,
            and ties with another run without, so the three add up to n + missing.
        margin: smaller differences count as equal; NaN if no margin was given.
        tost_p: paired t test of equivalence within the margin (two one-sided tests; the larger p).
        level: confidence level of the interval.
    """

    n: int
    missing: int
    effect: float
    low: float
    high: float
    mean_difference: float
    p: float
    smallest_p: float
    wins: int
    losses: int
    ties: int
    margin: float
    tost_p: float
    level: float


def paired(
    a: Sequence[float] | Floats,
    b: Sequence[float] | Floats,
    margin: float | None = None,
    level: float = 0.95,
    lower_is_better: bool = False,
) -> Paired:
    """Compare two rows seed by seed.

    Wilcoxon: zero differences are ranked but not summed (Pratt), so that many equal seeds weaken the evidence; equal
    differences share their ranks. p is exact up to 50 pairs, including ties and zeros (all sign combinations are
    counted), and above that uses the normal approximation with continuity correction.

    Args:
        a: scores of row A, one per seed, shape [n]; NaN or infinite for a run without a number.
        b: scores of row B for the same seeds in the same order, shape [n].
        margin: half-width of the equivalence range, in the score's unit; None: equivalence is not tested.
        level: confidence level of the effect's interval.
        lower_is_better: a lower score wins (costs, calibration errors); the effect stays ``a - b``.

    Raises:
        ValueError: different lengths, not one-dimensional, a level outside (0, 1), a margin that is not above 0.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"paired needs one score per seed for both rows; got shapes {first.shape} and {second.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as .95; got {level}")
    if margin is not None and not 0 < margin < math.inf:
        raise ValueError(f"margin must be above 0, in the unit of the score, such as .02; got {margin}")
    ran_a, ran_b = np.isfinite(first), np.isfinite(second)
    both = ran_a & ran_b
    d = differences(first[both], second[both])
    better = -d if lower_is_better else d
    wins = int((better > 0).sum() + (ran_a & ~ran_b).sum())
    losses = int((better < 0).sum() + (ran_b & ~ran_a).sum())
    effect, low, high = hodges_lehmann(d, level)
    return Paired(
        n=d.size,
        missing=first.size - d.size,
        effect=effect,
        low=low,
        high=high,
        mean_difference=float(d.mean()) if d.size else math.nan,
        p=_wilcoxon(d),
        smallest_p=smallest_p(d.size),
        wins=wins,
        losses=losses,
        ties=first.size - wins - losses,
        margin=math.nan if margin is None else margin,
        tost_p=math.nan if margin is None else _tost(d, margin),
        level=level,
    )


def differences(a: Floats, b: Floats) -> Floats:
    """a - b of finite float64 [n]; values, and differences, that differ only by rounding count as equal."""
    largest = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)))
    return np.round(a - b, _DIGITS - math.ceil(math.log10(largest))) if largest > 0 else a - b


def hodges_lehmann(d: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """The centre of paired differences and its interval, by inverting the signed-rank test (Hollander and Wolfe 3.2).

    Coverage is ``level`` or slightly more for differences that are symmetric about their centre (as when two rows
    differ by a shift), for any tails; with ties it is higher.

    Args:
        d: differences, shape [n], finite.
        level: confidence level.

    Returns:
        (effect, low, high). The bounds are NaN if n pairs cannot reach the level (below 6 for 95 %); all are NaN
        without pairs.
    """
    values = np.asarray(d, np.float64)
    if not values.size:
        return math.nan, math.nan, math.nan
    first, second = np.triu_indices(values.size)
    walsh = np.sort((values[first] + values[second]) / 2)
    below = np.cumsum(_sum_chances(range(1, values.size + 1)))
    cut = int(np.searchsorted(below, (1 - level) / 2 * (1 + 1e-12), side="right")) - 1
    effect = float(np.median(walsh))
    return (effect, float(walsh[cut]), float(walsh[-1 - cut])) if cut >= 0 else (effect, math.nan, math.nan)


def _sum_chances(ranks: Iterable[int]) -> Floats:
    """Probability of every sum 0, 1, ... if each rank is included with probability 1/2. SciPy's is private and has no
    ties."""
    chances = np.ones(1)
    for rank in ranks:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return chances


def _wilcoxon(d: Floats) -> float:
    from scipy.stats import rankdata, wilcoxon

    if not d.any():
        return 1.0 if d.size else math.nan
    tied = np.unique(np.abs(d)).size < d.size or not d.all()
    if not tied or d.size > _EXACT_PAIRS:
        return float(wilcoxon(d, zero_method="pratt", correction=True, method="auto").pvalue)
    # SciPy enumerates signs (.3 s for 12 pairs) and approximates from 14 on. Ranks are doubled: shared ranks are x.5.
    doubled = np.rint(2 * rankdata(np.abs(d))).astype(int)
    chances = _sum_chances(doubled[d != 0].tolist())
    found = int(doubled[d > 0].sum())
    return float(min(1.0, 2 * min(chances[: found + 1].sum(), chances[found:].sum())))


def _tost(d: Floats, margin: float) -> float:
    from scipy.stats import ttest_1samp

    if d.size < 2:
        return math.nan
    if np.ptp(d) == 0:  # the t statistic would divide by 0: a constant difference is inside the margin or not
        return 0.0 if abs(d[0]) < margin else 1.0
    below = ttest_1samp(d, -margin, alternative="greater").pvalue
    above = ttest_1samp(d, margin, alternative="less").pvalue
    return float(max(below, above))


def smallest_p(n: int) -> float:
    """The smallest two-sided p that n pairs can reach: all n differences with the same sign, 2 / 2^n. NaN without
    pairs."""
    return 2.0 ** (1 - n) if n > 0 else math.nan


def holm(pvalues: Mapping[str, float]) -> dict[str, float]:
    """Holm's (1979) adjusted p-values: at or below alpha, the comparison is significant among all comparisons made.

    Args:
        pvalues: p by comparison; NaN for a planned comparison that could not be made: it stays NaN and counts, so that
            a failed row does not make another row significant.

    Returns:
        adjusted p by comparison, in the order given; never below p, at most 1.

    Raises:
        ValueError: a p outside [0, 1].

    Example:
        >>> holm({"focal": 0.01, "ldam": 0.04, "la_post": 0.02})
        {'focal': 0.03, 'ldam': 0.04, 'la_post': 0.04}
    """
    if wrong := [name for name, p in pvalues.items() if not (math.isnan(p) or 0 <= p <= 1)]:
        raise ValueError(f"p-value of '{wrong[0]}' is {pvalues[wrong[0]]}; it must be in [0, 1]")
    adjusted = dict.fromkeys(pvalues, math.nan)
    highest = 0.0
    for at, name in enumerate(sorted((n for n, p in pvalues.items() if not math.isnan(p)), key=lambda n: pvalues[n])):
        highest = max(highest, min(1.0, (len(pvalues) - at) * pvalues[name]))
        adjusted[name] = highest
    return adjusted


def seeds_needed(comparisons: int, alpha: float = 0.05) -> int:
    """The smallest number of paired seeds with which Wilcoxon and Holm over that many comparisons can reach alpha.

    Raises:
        ValueError: comparisons below 1, alpha outside (0, 1).
    """
    if comparisons < 1 or not 0 < alpha < 1:
        raise ValueError(f"need at least 1 comparison and 0 < alpha < 1; got {comparisons} and {alpha}")
    n = 1
    while comparisons * smallest_p(n) > alpha:
        n += 1
    return n


def power_note(n: int, comparisons: int, alpha: float = 0.05) -> str | None:
    """A sentence if n paired seeds are too few for any p to reach alpha, otherwise None.

    Raises:
        ValueError: see `seeds_needed`.
    """
    if n >= (needed := seeds_needed(comparisons, alpha)):
        return None
    if n < 1:
        return f"no pair of seeds: no test is possible; at least {needed} seeds are needed"
    pairs = "1 seed: the smallest p that 1 pair" if n == 1 else f"{n} seeds: the smallest p that {n} pairs"
    over = f"with Holm over {comparisons} comparisons" if comparisons > 1 else f"for {_figure(alpha)}"
    return (
        f"{pairs} can reach is {_figure(smallest_p(n))}; {over} at least {needed} seeds are needed; "
        "read these as descriptive"
    )


def _figure(value: float) -> str:
    return f"{value:.3g}".removeprefix("0")
