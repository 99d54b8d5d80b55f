"""Rows drawn at random: what every other rule must beat."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import Asked, QueryRule


@register("query", "random")
class Random(QueryRule):
    """Uniformly, without replacement. Reads no model."""

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`."""
        return torch.randperm(asked.size, generator=asked.generator)[: asked.budget]
