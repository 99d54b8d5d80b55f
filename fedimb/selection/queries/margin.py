"""The rows whose two likeliest classes are closest (Scheffer et al., IDA 2001). A baseline of FairFAL."""

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import Asked, QueryRule
from fedimb.selection.uncertainty import highest, margin


@register("query", "margin")
class Margin(QueryRule):
    """Smallest gap between the two largest softmax values under the model asked; of equals the lower position."""

    adaptive = True

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`."""
        return highest(margin(asked.pool[asked.which].logits), asked.budget)
