"""The rows whose likeliest class is least likely (Lewis & Gale, SIGIR 1994). The baseline of that name in FairFAL."""

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import Asked, QueryRule
from fedimb.selection.uncertainty import highest, least_confidence


@register("query", "least_confidence")
class LeastConfidence(QueryRule):
    """Smallest max softmax under the model asked; of equals the lower position."""

    adaptive = True

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`."""
        return highest(least_confidence(asked.pool[asked.which].logits), asked.budget)
