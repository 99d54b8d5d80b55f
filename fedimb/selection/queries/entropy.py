"""The rows with the largest predictive entropy (Settles 2009, section 3.1). The baseline of that name in FairFAL."""

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import QueryInput, QueryRule
from fedimb.selection.uncertainty import highest, normalised_entropy


@register("query", "entropy")
class Entropy(QueryRule):
    """Largest entropy under the chosen model; ties to the lower position."""

    adaptive = True

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        return highest(normalised_entropy(query.pool[query.which].logits), query.budget)
