"""Focal loss: rows that are already correct count less.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 4: FL(p_t) = -(1 - p_t)^gamma log(p_t), here with
p_t the softmax probability of the label (the paper's p is a sigmoid per class). It weights rows by difficulty, not
classes by rarity, and so does not correct imbalance on its own; for that the paper adds a class weight (eq. 5): see
`class_balanced`.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.training.losses.base import RowLoss, in_range


def focal_rows(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Focal loss of each row: logits [..., C] float32, labels [...] int64 -> [...] float32. gamma 0 is cross-entropy.

    log(1 - p_t) comes from the other classes' logits: 1 - exp(log p_t) would be 0 for a row with certain and correct
    prediction, where the gradient of its power is infinite for gamma < 1.
    """
    total = logits.logsumexp(-1)
    label = labels[..., None]
    log_p = logits.gather(-1, label)[..., 0] - total
    if gamma == 0:
        return -log_p
    others = logits.scatter(-1, label, torch.finfo(logits.dtype).min)
    return -log_p * (gamma * (others.logsumexp(-1) - total)).exp()


@register("loss", "focal", adjusts_logits=False, needs_prior=False, stackable=True)
class Focal(RowLoss):
    """Focal loss: rows that are already correct count less.

    Args:
        gamma: focusing exponent, at least 0 (0: cross-entropy; the paper's best: 2).

    Raises:
        ConfigError: gamma negative or not finite.

    Example:
        >>> import torch
        >>> logits, labels = torch.tensor([[4.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0])
        >>> (1000 * Focal(gamma=2).rows(logits, labels)).round().tolist()
        [0.0, 173.0]
        >>> (1000 * Focal(gamma=0).rows(logits, labels)).round().tolist()
        [18.0, 693.0]
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = in_range("focal", "gamma", gamma, 0)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and labels [...] int64 -> loss of each row [...]."""
        return focal_rows(logits, labels, self.gamma)
