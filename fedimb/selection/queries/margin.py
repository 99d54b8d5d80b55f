"""The rows whose two most likely classes are closest (Scheffer et al., IDA 2001). A baseline of FairFAL."""

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import QueryInput, QueryRule
from fedimb.selection.uncertainty import highest, margin


@register("query", "margin")
class Margin(QueryRule):
    """Smallest gap between the two largest softmax values under the chosen model; ties to the lower position.

    Example:
        >>> import torch
        >>> from fedimb.selection.queries.base import ModelOutputs
        >>> logits = torch.tensor([[9.0, 0.0], [1.0, 0.9], [3.0, 0.0]])
        >>> none = torch.zeros(0, dtype=torch.int64)
        >>> pool, labelled = ModelOutputs(torch.zeros(3, 4), logits), ModelOutputs(torch.zeros(0, 4), torch.zeros(0, 2))
        >>> query = QueryInput(2, 2, none, {"global": pool}, {"global": labelled}, torch.Generator())
        >>> Margin().select(query).tolist()
        [1, 2]
    """

    adaptive = True

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        return highest(margin(query.pool[query.which].logits), query.budget)
