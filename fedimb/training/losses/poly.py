"""Poly-1: cross-entropy with its first polynomial term changed.

Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR 2022, Poly-1:
l = -log p_y + epsilon (1 - p_y). Its gradient in the label's logit is -(1 - p_y)(1 + epsilon p_y): epsilon > 0 pulls
harder on rows that are already correct, epsilon < 0 less, and below -1 it would push some of them away.
"""

from torch import Tensor

from fedimb.registry import register
from fedimb.training.losses.base import RowLoss, in_range, row_cross_entropy


@register("loss", "poly", adjusts_logits=False, needs_prior=False, stackable=True)
class Poly1(RowLoss):
    """Poly-1: cross-entropy with its first polynomial term changed.

    Args:
        epsilon: at least -1; 0 is cross-entropy. The paper's values: 1 to 2 on balanced data, negative on imbalanced.

    Raises:
        ConfigError: epsilon below -1 or not finite.
    """

    def __init__(self, epsilon: float = 1.0) -> None:
        super().__init__()
        self.epsilon = in_range("poly", "epsilon", epsilon, -1)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and labels [...] int64 -> loss of each row [...]."""
        rows = row_cross_entropy(logits, labels)
        return rows - self.epsilon * (-rows).expm1()
