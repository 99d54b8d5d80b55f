"""Leaves classes that a client does not annotate out of its softmax: their head rows then learn nothing, either way."""

import torch
from torch import Tensor

from fedimb.training.fusion import NEVER
from fedimb.training.objectives.base import LocalObjective


class ClassMask(LocalObjective):
    """The loss sees `NEVER` as the logit of every class outside ``annotated``.

    Args:
        annotated: [C] bool.
    """

    def __init__(self, annotated: Tensor) -> None:
        self._other = ~annotated

    def on_logits(self, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] with the other classes' masked."""
        return torch.where(self._other.to(logits.device), NEVER, logits)
