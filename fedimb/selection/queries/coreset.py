"""Rows that cover the pool: greedy k-centre on penultimate features, with the labelled rows as existing centres.

Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018, algorithm 1 (the
greedy, not the mixed-integer refinement), as the federated comparisons run it.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.gradient_embeddings import Factored
from fedimb.selection.queries.base import QueryInput, QueryRule
from fedimb.selection.queries.centres import k_center


@register("query", "coreset")
class Coreset(QueryRule):
    """Farthest first, Euclidean. Without labelled rows the first is drawn at random."""

    adaptive = True

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        pool, labelled = (Factored.of(view[query.which].features) for view in (query.pool, query.labelled))
        first = int(torch.randint(query.size, (1,), generator=query.generator))
        return k_center(pool, query.budget, labelled, first)
