"""A model's uncertainty about each row, from its logits. Every score grows with uncertainty: query the highest first.

Textbook definitions (Settles, "Active Learning Literature Survey", 2009, section 3.1). The entropy is divided by ln C,
as in FairFAL, so that it is in [0, 1]; this does not change the order.
"""

import math

import torch
from torch import Tensor


def probabilities(logits: Tensor) -> Tensor:
    """Softmax in float64: [n, C] -> [n, C]. In float32 every row with a confidence above 1 - 6e-8 would score the same.

    Raises:
        ValueError: not [n, C] with at least two classes.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"uncertainty needs logits [n, C] of at least 2 classes; got shape {tuple(logits.shape)}")
    return logits.double().softmax(1)


def normalised_entropy(logits: Tensor) -> Tensor:
    """H(p) / ln C of each row: logits [n, C] -> [n] float64 in [0, 1].

    Example:
        >>> import torch
        >>> entropy = normalised_entropy(torch.tensor([[0.0, 0.0], [8.0, 0.0]]))
        >>> [round(value, 3) for value in entropy.tolist()]
        [1.0, 0.004]
    """
    p = probabilities(logits)
    return torch.special.entr(p).sum(1).clamp_(0, math.log(p.shape[1])) / math.log(p.shape[1])


def least_confidence(logits: Tensor) -> Tensor:
    """1 - max_c p_c of each row: logits [n, C] -> [n] float64 in [0, 1 - 1/C]."""
    return 1 - probabilities(logits).amax(1)


def margin(logits: Tensor) -> Tensor:
    """1 - (p_first - p_second) of each row, so that a narrow margin scores high: logits [n, C] -> [n] float64."""
    first, second = probabilities(logits).topk(2, dim=1).values.unbind(1)
    return 1 - (first - second)


def highest(scores: Tensor, count: int) -> Tensor:
    """Positions of the ``count`` highest scores, highest first; in ties the lower position comes first.

    Args:
        scores: [n], no NaN.
        count: number of positions; more than n gives all n.

    Returns:
        int64 [min(count, n)].
    """
    return scores.argsort(descending=True, stable=True)[:count]
