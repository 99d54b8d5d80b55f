"""Rows drawn at random: the baseline for every other rule."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import QueryInput, QueryRule


@register("query", "random")
class Random(QueryRule):
    """Random rows, uniformly without replacement. Reads no model."""

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        return torch.randperm(query.size, generator=query.generator)[: query.budget]
