"""Weighted binary cross-entropy: finding a rare class counts more than finding a common one.

As `bce`, with w_c times the positive term: -sum over c of w_c t_c log p_c + (1 - t_c) log(1 - p_c) and
w_c = min(cap, (n_max / n_c)^power), where n_max is the count of the most frequent class. The classical weight
(n - n_c) / n_c (King & Zeng 2001 for one class) needs the number of rows n, which cannot be derived from class counts
if rows have several labels; so weights are relative to the most frequent class. Without a cap, a class with three rows
in ten thousand would have a weight of more than a thousand.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fedimb.registry import register
from fedimb.training.losses.base import BOTH, RowLoss, in_range, known_targets, over_known
from fedimb.training.losses.class_weights import filled_counts


@register(
    "loss",
    "weighted_bce",
    adjusts_logits=False,
    needs_prior=True,
    stackable=True,
    tasks=BOTH,
    unknown_labels=("cells",),
)
class WeightedBinaryCrossEntropy(RowLoss):
    """Binary cross-entropy in which finding a rare class counts more.

    Args:
        prior: class counts [C] (given by fedimb). A class without rows gets the weight of the rarest class with rows.
        power: 1 weights inversely to the counts, 0 is `bce`.
        cap: the largest weight, at least 1.

    Raises:
        ConfigError: an argument outside its range.
        ValueError: unusable counts.
    """

    weights: Tensor

    def __init__(self, prior: np.ndarray, power: float = 1.0, cap: float = 10.0) -> None:
        super().__init__()
        in_range("weighted_bce", "power", power, 0)
        in_range("weighted_bce", "cap", cap, 1)
        counts = filled_counts(prior)
        weights = np.minimum(cap, (counts.max() / counts) ** power)
        self.register_buffer("weights", torch.from_numpy(weights).to(torch.float32), persistent=False)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and targets [..., C] or labels [...] int64 -> loss of each row [...]."""
        targets, unknown = known_targets(logits, labels)
        each = binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=self.weights)
        return over_known(each, unknown)
