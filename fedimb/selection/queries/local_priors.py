"""Predictions of two models on a client's balanced rows, and which of them to use for uncertainty.

The first two steps of FairFAL (Zong & Huang, arXiv 2603.10341): pi = the mean softmax over a client's labelled rows
with balanced classes; how much the two models differ, d_k; how evenly the global model treats the classes, gamma_k; and
the switch s_k = 1 - (d_k + gamma) / 2 > delta: the global model where the federation is imbalanced (small gamma) and
the client resembles it (small d_k).
"""

import math

import torch
from torch import Tensor

from fedimb.selection.queries.base import Which


def balanced_positions(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Positions in which every present class occurs as often as the largest.

    Every row once, then rows of the smaller classes drawn again with replacement. (The paper only says up-sampled;
    keeping each row at least once makes pi less noisy.)

    Args:
        labels: [m] int64.
        generator: draws the repeated rows.

    Returns:
        int64 [classes present x rows of the largest class], by class; empty without labels.
    """
    rows = [(labels == label).nonzero().flatten() for label in labels.unique()]
    largest = max((len(one) for one in rows), default=0)
    shown = [torch.cat([one, one[torch.randint(len(one), (largest - len(one),), generator=generator)]]) for one in rows]
    return torch.cat(shown) if shown else torch.zeros(0, dtype=torch.int64)


def mean_softmax(logits: Tensor) -> Tensor:
    """Pi: logits [m, C] of the balanced rows -> [C] float64; NaN without rows."""
    return logits.double().softmax(1).mean(0)


def model_distance(global_prior: Tensor, local_prior: Tensor) -> float:
    """d_k = (1/C) sum_c |g_c - l_c| / (g_c + l_c) over all C classes, in [0, 1].

    0 for equal priors; a class that neither model ever predicts counts as 0. NaN if a prior is NaN.
    """
    g, l = global_prior.double(), local_prior.double()  # noqa: E741
    both = g + l
    return float(torch.where(both == 0, torch.zeros_like(both), (g - l).abs() / both).mean())


def class_balance(global_prior: Tensor, labels: Tensor) -> float:
    """gamma_k = min / max of the global model's prior over the classes labelled at the client, in [0, 1].

    1 for a uniform prior or a single class. NaN without labels. This is the only number that a client sends.
    """
    present = global_prior.double()[labels.unique()]
    if len(present) == 0 or not bool(present.max() > 0):
        return math.nan
    return float(present.min() / present.max())


def switch_score(distance: float, gamma: float) -> float:
    """s_k = 1 - (d_k + gamma) / 2 in [0, 1]; gamma is the mean over clients, taken once at the first query."""
    return 1 - (distance + gamma) / 2


def adaptive_model(distance: float, gamma: float, delta: float = 0.75) -> Which:
    """The model whose uncertainty to use: ``global`` if s_k > delta, else ``local``.

    ``global`` if d_k or gamma is NaN: a client without labels has no useful local model.
    """
    score = switch_score(distance, gamma)
    return "global" if math.isnan(score) or score > delta else "local"
