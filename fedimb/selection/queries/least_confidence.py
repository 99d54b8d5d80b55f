"""The rows whose most likely class has the lowest probability (Lewis & Gale, SIGIR 1994). The baseline of that name in
FairFAL."""

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import QueryInput, QueryRule
from fedimb.selection.uncertainty import highest, least_confidence


@register("query", "least_confidence")
class LeastConfidence(QueryRule):
    """Smallest max softmax under the chosen model; ties to the lower position."""

    adaptive = True

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        return highest(least_confidence(query.pool[query.which].logits), query.budget)
