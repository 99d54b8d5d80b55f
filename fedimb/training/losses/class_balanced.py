"""Class-balanced loss: each row is weighted inversely to the effective number of samples of its class.

Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019: w_c = (1 - beta) / (1 - beta^n_c),
rescaled to sum to the number of classes, times the softmax cross-entropy (section 4.1) or the focal loss (section
4.3, here with the softmax probability of the label). beta 0 means no weighting, beta -> 1 is 1 / n_c.
"""

import numpy as np
from torch import Tensor

from fedimb.registry import register
from fedimb.training.losses.base import RowLoss, in_range
from fedimb.training.losses.class_weights import effective_number_weights, weighted_rows
from fedimb.training.losses.focal import focal_rows


@register("loss", "class_balanced", adjusts_logits=False, needs_prior=True, stackable=True)
class ClassBalanced(RowLoss):
    """Cross-entropy or focal loss weighted inversely to the effective number of samples of a class.

    Args:
        prior: class counts [C] (given by fedimb). A class without rows gets the weight of the rarest class with rows.
        beta: 0 <= beta < 1; the paper tries .9, .99, .999 and .9999.
        gamma: focusing exponent of the focal loss, at least 0; 0: cross-entropy.

    Raises:
        ConfigError: beta or gamma outside its range.
        ValueError: unusable counts.
    """

    weights: Tensor

    def __init__(self, prior: np.ndarray, beta: float = 0.999, gamma: float = 0.0) -> None:
        super().__init__()
        in_range("class_balanced", "beta", beta, 0, 1, high_allowed=False)
        self.gamma = in_range("class_balanced", "gamma", gamma, 0)
        self.register_buffer("weights", effective_number_weights(prior, beta), persistent=False)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and labels [...] int64 -> loss of each row [...]."""
        return weighted_rows(focal_rows(logits, labels, self.gamma), labels, self.weights)
