"""The rows whose two likeliest classes are closest (Scheffer et al., IDA 2001). A baseline of FairFAL."""

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import Asked, QueryRule
from fedimb.selection.uncertainty import highest, margin


@register("query", "margin")
class Margin(QueryRule):
    """Smallest gap between the two largest softmax values under the model asked; of equals the lower position.

    Example:
        >>> import torch
        >>> from fedimb.selection.queries.base import Seen
        >>> logits = torch.tensor([[9.0, 0.0], [1.0, 0.9], [3.0, 0.0]])
        >>> none = torch.zeros(0, dtype=torch.int64)
        >>> pool, labelled = Seen(torch.zeros(3, 4), logits), Seen(torch.zeros(0, 4), torch.zeros(0, 2))
        >>> asked = Asked(2, 2, none, {"global": pool}, {"global": labelled}, torch.Generator())
        >>> Margin().select(asked).tolist()
        [1, 2]
    """

    adaptive = True

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`."""
        return highest(margin(asked.pool[asked.which].logits), asked.budget)
