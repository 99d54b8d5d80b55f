"""The rows with the largest predictive entropy (Settles 2009, section 3.1). The baseline of that name in FairFAL."""

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import Asked, QueryRule
from fedimb.selection.uncertainty import highest, normalised_entropy


@register("query", "entropy")
class Entropy(QueryRule):
    """Largest entropy under the model asked; of equals the lower position."""

    adaptive = True

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`."""
        return highest(normalised_entropy(asked.pool[asked.which].logits), asked.budget)
