"""FedProx's proximal term.

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, eq. 2:
h_k(w; w^t) = F_k(w) + mu/2 ||w - w^t||^2. Applied as its gradient mu (w - w^t), without an autograd graph.
"""

import math

import torch
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.training.objectives.base import LocalObjective


@register(
    "objective", "proximal", stackable=True, tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse")
)
class Proximal(LocalObjective):
    """FedProx's proximal term.

    Args:
        mu: strength, >= 0 and finite.

    Raises:
        ConfigError: any other mu.
    """

    stackable = True

    def __init__(self, mu: float) -> None:
        if not 0 <= mu < math.inf:
            raise ConfigError(f"objective 'proximal': mu must be >= 0 and finite; got {mu}")
        self.mu = mu
        self._start: list[Tensor] = []

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Store the received weights w^t."""
        self._start = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """gradients += mu (w - w^t)."""
        stacked = [s if s.shape == p.shape else s[: len(p)] for s, p in zip(self._start, parameters, strict=True)]
        drift = torch._foreach_sub(parameters, stacked)
        torch._foreach_add_(gradients, drift, alpha=self.mu)
