"""Class weights from counts, and the loss of weighted rows: shared by the re-weighting losses."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedimb.training.losses.base import of_labels
from fedimb.training.prior import class_prior

Over = Literal["classes", "rows"]


def filled_counts(counts: np.ndarray) -> np.ndarray:
    """Counts [C] -> counts [C] float64 in which a class without rows has the count of the rarest class with rows.

    The rule of `class_prior`. Raises ValueError in the same cases.
    """
    class_prior(counts)
    counts = np.asarray(counts, dtype=np.float64)
    filled: np.ndarray = np.where(counts > 0, counts, counts[counts > 0].min())
    return filled


def mean_one(weights: np.ndarray, counts: np.ndarray, over: Over = "classes") -> Tensor:
    """Weights [C] rescaled to mean 1, as a float32 tensor [C].

    Args:
        weights: one per class, positive.
        counts: rows of each class; a class without rows is excluded from the mean.
        over: ``classes``: mean over the classes that have rows; ``rows``: mean over the counted rows, so that the scale
            of the loss, and with it a suitable learning rate, stays that of cross-entropy.

    Raises:
        ValueError: another ``over``.
    """
    if over not in ("classes", "rows"):
        raise ValueError(f"weights can have mean 1 over 'classes' or 'rows', not over {over!r}")
    counts = np.asarray(counts, dtype=np.float64)
    share = counts if over == "rows" else (counts > 0).astype(np.float64)
    return torch.from_numpy(weights * share.sum() / (weights * share).sum()).to(torch.float32)


def effective_number_weights(counts: np.ndarray, beta: float) -> Tensor:
    """Counts [C] and 0 <= beta < 1 -> weights [C] float32 with mean 1 over the classes that have rows.

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019: (1 - beta) / (1 - beta^n_c),
    then rescaled so that they sum to the number of classes (section 4).

    Example:
        >>> import numpy as np
        >>> weights = effective_number_weights(np.array([1000, 100, 10]), beta=0.99)
        >>> [round(weight, 2) for weight in weights.tolist()]
        [0.23, 0.36, 2.41]
    """
    filled = filled_counts(counts)
    if beta == 0:
        return torch.ones(len(filled))
    # 1 - beta^n without cancellation for beta near 1
    return mean_one((1 - beta) / -np.expm1(filled * np.log(beta)), counts)


def weighted_rows(rows: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """w_y times each row's loss: rows [...], labels [...], weights [C] or [K, 1, C] -> [...].

    The mean is then taken over rows, unlike `cross_entropy(weight=...)`, which divides by the sum of the batch's
    weights: with that, a batch of only rare rows counts no more than a batch of common ones, and a batch of one row is
    not weighted at all.
    """
    return of_labels(weights, labels) * rows
