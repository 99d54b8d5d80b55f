"""What a classifier finds less of classes with few training rows than of the others, and the size of an effect."""

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike


def bias_gap(recall: ArrayLike, starved: Collection[int]) -> float:
    """Mean recall of the other classes minus mean recall of the starved ones: 0 is even, above 0 favours the others.

    As in "When Generative Augmentation Hurts" (arXiv 2603.16134), where the starved classes had few training rows.

    Args:
        recall: [C], on a test set with rows of each class.
        starved: class ids.

    Raises:
        ValueError: a recall that is NaN, an id out of range, or no class on one of the sides.

    Example:
        >>> round(bias_gap([0.9, 0.7, 0.5, 0.1], starved=[2, 3]), 3)
        0.5
    """
    values = np.asarray(recall, np.float64)
    few = np.zeros(len(values), bool)
    few[[*starved]] = True
    if np.isnan(values).any() or few.all() or not few.any() or min(starved) < 0:
        raise ValueError(
            f"a bias gap needs a recall of each class, starved ones and others; got {values.tolist()} and {[*starved]}"
        )
    return float(values[~few].mean() - values[few].mean())


def cohens_d(first: ArrayLike, second: ArrayLike) -> float:
    """Cohen's d: the difference of two samples' means in units of their pooled standard deviation.

    Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988. Above 0 the first is greater. With a few
    values on each side it is too large on average and very uncertain: say it beside an interval of the difference.

    Args:
        first, second: at least two values each.

    Returns:
        0 for equal means; infinite (signed) for unequal ones without any spread.

    Raises:
        ValueError: fewer than two values, or one that is not finite.

    Example:
        >>> round(cohens_d([2, 4, 6], [1, 3, 5]), 3)
        0.5
    """
    a, b = (np.asarray(side, np.float64) for side in (first, second))
    if a.ndim != 1 or b.ndim != 1 or min(len(a), len(b)) < 2 or not np.isfinite(np.concatenate([a, b])).all():
        raise ValueError(f"Cohen's d needs two finite values or more on each side; got {a.tolist()} and {b.tolist()}")
    difference = float(a.mean() - b.mean())
    freedom = len(a) + len(b) - 2
    pooled = math.sqrt((a.var(ddof=1) * (len(a) - 1) + b.var(ddof=1) * (len(b) - 1)) / freedom)
    if pooled == 0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / pooled
