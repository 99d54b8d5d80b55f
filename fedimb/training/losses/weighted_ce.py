"""Weighted cross-entropy: each row is weighted inversely to the size of its class.

l = -w_y log p_y with w_c proportional to 1 / n_c (the classical cost-sensitive baseline; King & Zeng, "Logistic
Regression in Rare Events Data", 2001). With very small n_c its variance between seeds is high.
"""

import numpy as np
from torch import Tensor

from fedimb.registry import register
from fedimb.training.losses.base import RowLoss, row_cross_entropy
from fedimb.training.losses.class_weights import Over, filled_counts, mean_one, weighted_rows


@register("loss", "weighted_ce", adjusts_logits=False, needs_prior=True, stackable=True)
class WeightedCrossEntropy(RowLoss):
    """Cross-entropy with rows weighted inversely to the size of their class.

    Args:
        prior: class counts [C] (given by fedimb). A class without rows gets the weight of the rarest class with rows.
        mean_over: over what the weights have mean 1: ``classes`` (those with rows; no weight exceeds their number) or
            ``rows`` (of the counts: over all of them the loss is then the mean of the classes' mean cross-entropies).

    Raises:
        ValueError: unusable counts, or another ``mean_over``.
    """

    weights: Tensor

    def __init__(self, prior: np.ndarray, mean_over: Over = "classes") -> None:
        super().__init__()
        self.register_buffer("weights", mean_one(1 / filled_counts(prior), prior, mean_over), persistent=False)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and labels [...] int64 -> loss of each row [...] (see `weighted_rows`)."""
        return weighted_rows(row_cross_entropy(logits, labels), labels, self.weights)
