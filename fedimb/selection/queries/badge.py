"""Rows that are both uncertain and diverse: k-means++ seeding on gradient embeddings.

BADGE: Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds", ICLR 2020, algorithm 1; the
first row is the one with the longest embedding, as in its released code. Labelled rows are not used.
"""

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.gradient_embeddings import gradient_embeddings
from fedimb.selection.queries.base import QueryInput, QueryRule
from fedimb.selection.queries.centres import seed_k_means


@register("query", "badge")
class Badge(QueryRule):
    """D^2 sampling on the embeddings of the chosen model."""

    adaptive = True

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        seen = query.pool[query.which]
        rows = gradient_embeddings(seen.features, seen.logits)
        return seed_k_means(rows, query.budget, query.generator, first=int(rows.squared_norms.argmax()))
