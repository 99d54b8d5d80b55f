"""Poly-1: cross-entropy with its first polynomial term changed.

Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR 2022, Poly-1:
l = -log p_y + epsilon (1 - p_y). Its slope along the label's logit is -(1 - p_y)(1 + epsilon p_y): epsilon > 0 pulls
harder on rows already right, epsilon < 0 less hard, and below -1 it would push some of them away.
"""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedimb.registry import register
from fedimb.training.losses.arguments import in_range


@register("loss", "poly", adjusts_logits=False, needs_prior=False, stackable=True)
class Poly1(nn.Module):
    """Args:
    epsilon: at least -1; 0 is cross-entropy. The paper's values: 1 to 2 on balanced data, negative on imbalanced.

    Raises:
        ConfigError: epsilon below -1 or not finite.
    """

    def __init__(self, epsilon: float = 1.0) -> None:
        super().__init__()
        self.epsilon = in_range("poly", "epsilon", epsilon, -1)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] float32 and labels [n] int64 -> scalar mean over rows."""
        rows = cross_entropy(logits, labels, reduction="none")
        return (rows - self.epsilon * (-rows).expm1()).mean()
