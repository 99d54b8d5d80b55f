"""Rows that cover the pool: greedy k-centre on penultimate features, the labelled rows as centres that are there.

Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018, algorithm 1 (the
greedy, not the mixed-integer refinement), as the federated comparisons run it.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.gradient_embeddings import Factored
from fedimb.selection.queries.base import Asked, QueryRule
from fedimb.selection.queries.centres import k_center


@register("query", "coreset")
class Coreset(QueryRule):
    """Furthest first, Euclidean. Without labelled rows the first is drawn at random."""

    adaptive = True

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`."""
        pool, labelled = (Factored.of(view[asked.which].features) for view in (asked.pool, asked.labelled))
        first = int(torch.randint(asked.size, (1,), generator=asked.generator))
        return k_center(pool, asked.budget, labelled, first)
