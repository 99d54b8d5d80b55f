"""Weights of an ensemble by greedy selection of models with replacement, on labelled rows.

Caruana, Niculescu-Mizil, Crew & Ksikes, "Ensemble Selection from Libraries of Models", ICML 2004; with a penalty on
uneven weights as in the Optimised Greedy-Weighted Ensemble (arXiv 2603.18927), whose tuned base models and stacked
network are not here.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedimb.evaluation.confusion import confusion_of
from fedimb.evaluation.metrics import scores

Score = Literal["macro_recall", "macro_f1", "log_loss"]
_LEAST = 1e-30


@dataclass(frozen=True)
class Selection:
    """What was selected.

    Attributes:
        counts: [K] int64, how often each model was; weights are these over their sum.
        score: of the ensemble on the rows, without the penalty; larger is better (``log_loss`` is negative).
        best_alone: score of the best single model.
    """

    counts: Tensor
    score: float
    best_alone: float


def select_greedily(
    probabilities: Tensor, labels: Tensor, picks: int, score: Score = "macro_recall", penalty: float = 0.0
) -> Selection:
    """Add, ``picks`` times, the model that makes the mean of the probabilities best; keep the best of these ensembles.

    Equal ones are told apart by their log loss (recall changes in steps), then by fewer picks, then by the model's
    position. The first pick is the best single model, so no result is worse than that on these rows, penalty aside.

    Args:
        probabilities: [K, n, C] of K models.
        labels: [n] int64, n > 0.
        picks: at most so many.
        score: what is made best: ``macro_recall``, ``macro_f1``, or the negative ``log_loss``.
        penalty: times the sum of the squared weights, off the score; it favours many models.

    Example:
        >>> sure, other = [[0.9, 0.1], [0.6, 0.4]], [[0.4, 0.6], [0.1, 0.9]]  # each is wrong about one row
        >>> found = select_greedily(torch.tensor([sure, other]), torch.tensor([0, 1]), 4)
        >>> found.counts.tolist(), found.score, found.best_alone
        ([1, 1], 1.0, 0.5)
    """
    counts = torch.zeros(len(probabilities), dtype=torch.int64)
    total = torch.zeros_like(probabilities[0], dtype=torch.float64)
    best: tuple[tuple[float, float], Tensor, float] | None = None
    alone = -torch.inf
    for picked in range(1, picks + 1):
        tried = []
        for k, own in enumerate(probabilities):
            mean, new = (total + own) / picked, counts.clone()
            new[k] += 1
            plain, loss = _score(mean, labels, score)
            weights = new.double() / picked
            tried.append((plain - penalty * float((weights**2).sum()), -loss, plain))
        if picked == 1:
            alone = max(plain for _, _, plain in tried)
        k = max(range(len(tried)), key=lambda k: tried[k][:2])
        counts[k] += 1
        total = total + probabilities[k]
        if best is None or tried[k][:2] > best[0]:
            best = tried[k][:2], counts.clone(), tried[k][2]
    assert best is not None
    return Selection(best[1], best[2], alone)


def _score(mean: Tensor, labels: Tensor, score: Score) -> tuple[float, float]:
    """(score, log loss) of mean probabilities [n, C]."""
    loss = -float(mean.gather(1, labels[:, None]).clamp_min(_LEAST).log().mean())
    if score == "log_loss":
        return -loss, loss
    return scores(confusion_of(labels, mean), ())[score], loss
