"""Gradients of bounded length in local training, for methods whose head makes them long."""

import torch
from torch import Tensor

from fedimb.training.objectives.base import LocalObjective
from fedimb.training.optim import clip_gradients


class ClippedGradient(LocalObjective):
    """Scales a step's gradient down to ``max_norm``; built by a method's client side, after its other objectives.

    Args:
        max_norm: largest L2 norm over all parameters, > 0.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    @torch.no_grad()
    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Scale all gradients in place by the same factor, as ``local.max_grad_norm`` does before other objectives."""
        clip_gradients(gradients, self.max_norm)
