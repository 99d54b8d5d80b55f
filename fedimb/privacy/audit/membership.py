"""Does the generator know its training records? A membership attack on its scores: AUC and TPR at 1 % FPR.

The score is the generator's own negative loss (the one-query attack of SimA, arXiv 2509.25003, for generators that are
diffusion models). TPR at a low FPR is the figure that counts: a few records that are known for certain do not change an
average (Carlini et al., "Membership inference attacks from first principles", S&P 2022). Members are ``train``,
non-members ``holdout`` of the same class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.evaluation.ratios import percentiles
from fedimb.privacy.audit.copies import exceedance_probability
from fedimb.privacy.audit.types import Floats

FPR = 0.01


@dataclass(frozen=True)
class AttackFigure:
    """One figure of the attack.

    Attributes:
        value, low, high: the figure and its 95 % bootstrap interval over members and non-members.
        bound: the lower bound of one-sided level 1 - alpha.
        p: exact probability of such a high value if members and non-members do not differ.
    """

    value: float
    low: float
    high: float
    bound: float
    p: float


def auc(members: Floats, others: Floats) -> float:
    """Probability that a member scores above a non-member; ties count half. At least one of each."""
    return float(_both(members[None], others[None])[0][0])


def tpr(members: Floats, others: Floats) -> float:
    """Share of members above the threshold that at most 1 % of the non-members exceed; of fewer than 100, none."""
    return float(_both(members[None], others[None])[1][0])


def attack_figures(
    members: NDArray, others: NDArray, alpha: float, draws: int, rng: np.random.Generator
) -> tuple[AttackFigure, AttackFigure]:
    """(AUC, TPR at 1 % FPR) of scores [n] and [m], both at least 1 and finite.

    Args:
        alpha: level of the one-sided bound.
        draws: number of resamples; more are drawn if these are too few for ``alpha``.
    """
    from scipy.stats import mannwhitneyu

    own, other = np.asarray(members, np.float64), np.asarray(others, np.float64)
    draws = max(draws, int(np.ceil(20 / alpha)))
    picked = rng.integers(len(own), size=(draws, len(own))), rng.integers(len(other), size=(draws, len(other)))
    again = np.stack(_both(own[picked[0]], other[picked[1]]), 1)
    points = (auc(own, other), tpr(own, other))
    chances = (
        float(mannwhitneyu(own, other, alternative="greater").pvalue),
        exceedance_probability(round(points[1] * len(own)), len(own), _rank(len(other)), len(other)),
    )
    area, rate = (
        AttackFigure(
            point,
            *percentiles(point, again[:, column], 0.95),
            float(np.quantile(again[:, column], alpha)),
            chances[column],
        )
        for column, point in enumerate(points)
    )
    return area, rate


def _rank(others: int) -> int:
    """Rank of the threshold among the non-members' scores, from the top."""
    return int(FPR * others + 1e-9) + 1


def _both(members: Floats, others: Floats) -> tuple[Floats, Floats]:
    """(AUC [b], TPR [b]) of scores [b, n] and [b, m]."""
    from scipy.stats import rankdata

    count, other = members.shape[1], others.shape[1]
    ranks = rankdata(np.concatenate([members, others], axis=1), axis=1)[:, :count]
    area = (ranks.sum(1) - count * (count + 1) / 2) / (count * other)
    threshold = np.partition(others, other - _rank(other), axis=1)[:, other - _rank(other)]
    rate: Floats = (members > threshold[:, None]).mean(1)
    return area, rate
