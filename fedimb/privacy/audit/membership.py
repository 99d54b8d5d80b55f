"""Does the generator know its training records? A membership attack on its scores, read as AUC and TPR at 1 % FPR.

The score is the generator's own negative loss (the one-query attack of SimA, arXiv 2509.25003, where the generator is a
diffusion model). TPR at a low FPR is the figure that counts: a few records that are known for certain do not move an
average (Carlini et al., "Membership inference attacks from first principles", S&P 2022). Members are ``train``,
non-members ``holdout`` of the same class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.evaluation.ratios import percentiles
from fedimb.privacy.audit.base import Floats
from fedimb.privacy.audit.copies import exceeding

FPR = 0.01


@dataclass(frozen=True)
class Known:
    """A figure of the attack.

    Attributes:
        value, low, high: with its 95 % bootstrap interval over members and non-members.
        bound: the lower bound of one-sided level 1 - alpha.
        p: chance of so high a value where members and non-members are alike, exact.
    """

    value: float
    low: float
    high: float
    bound: float
    p: float


def auc(members: Floats, others: Floats) -> float:
    """Chance that a member scores above a non-member, ties count half. Both at least 1."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, "left") + np.searchsorted(ordered, members, "right")
    return float(below.mean() / (2 * len(others)))


def tpr(members: Floats, others: Floats, fpr: float = FPR) -> float:
    """Share of members above the threshold that at most ``fpr`` of the non-members exceed.

    With fewer than 1 / fpr non-members none may exceed it.
    """
    return float((members > _threshold(others, fpr)[0]).mean())


def attacked(
    members: NDArray, others: NDArray, alpha: float, draws: int, rng: np.random.Generator
) -> tuple[Known, Known]:
    """(AUC, TPR at 1 % FPR) of scores [n] and [m], both at least 1 and finite.

    Args:
        alpha: of the one-sided bound.
        draws: resamples; more are drawn where so few could not tell ``alpha``.
    """
    from scipy.stats import mannwhitneyu

    own, other = np.asarray(members, np.float64), np.asarray(others, np.float64)
    draws = max(draws, int(np.ceil(20 / alpha)))
    again = np.array(
        [
            (auc(m, o), tpr(m, o))
            for m, o in (
                (own[rng.integers(len(own), size=len(own))], other[rng.integers(len(other), size=len(other))])
                for _ in range(draws)
            )
        ]
    )
    threshold, rank = _threshold(other, FPR)
    points = (auc(own, other), float((own > threshold).mean()))
    chances = (
        float(mannwhitneyu(own, other, alternative="greater").pvalue),
        exceeding(int((own > threshold).sum()), len(own), rank, len(other)),
    )
    area, rate = (
        Known(
            point,
            *percentiles(point, again[:, column], 0.95),
            float(np.quantile(again[:, column], alpha)),
            chances[column],
        )
        for column, point in enumerate(points)
    )
    return area, rate


def _threshold(others: Floats, fpr: float) -> tuple[float, int]:
    """(the value, its rank from the top)."""
    rank = int(fpr * len(others) + 1e-9) + 1
    return float(np.partition(others, len(others) - rank)[len(others) - rank]), rank
