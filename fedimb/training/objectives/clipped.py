"""Gradients of bounded length in local training, for methods whose head makes them long."""

import torch
from torch import Tensor

from fedimb.training.objectives.base import LocalObjective


class ClippedGradient(LocalObjective):
    """Scales a step's gradient down to ``max_norm``; built by a method's client side, after its other objectives.

    Args:
        max_norm: largest L2 norm over all parameters, > 0.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    @torch.no_grad()
    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Scale all gradients in place by the same factor."""
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (self.max_norm / norm.clamp_min(1e-12)).clamp_max(1.0))
