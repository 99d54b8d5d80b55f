"""Rows on which a client's own model and the federation's disagree, weighted by the client's label counts.

KAFAL: Cao et al., "Knowledge-Aware Federated Active Learning with Non-IID Data", ICCV 2023; its sampling part (KSAS):
the symmetric Kullback-Leibler divergence between both softmaxes after adding log(labelled count of the class) to both
logits, which favours the classes that the client knows. Its training part (KCFU) is ``strategy.active.kcfu``. The
client's own model has its weights after its last round (``updated``); if there are none, the local-only model is used.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.queries.base import QueryInput, QueryRule
from fedimb.selection.uncertainty import highest


def symmetric_divergence(one: Tensor, two: Tensor) -> Tensor:
    """KL(p | q) + KL(q | p) of each row's softmaxes: logits [n, C] twice -> [n] float64, at least 0."""
    p, q = one.double().log_softmax(1), two.double().log_softmax(1)
    return ((p.exp() - q.exp()) * (p - q)).sum(1)


@register("query", "kafal")
class Kafal(QueryRule):
    """Largest divergence between the client's own and the global model, weighted by label counts.

    Args:
        floor: count of a class without labels, above 0. With the paper's log of 0 the divergence would be undefined; 1
            counts an absent class like one seen once.

    Raises:
        ConfigError: a floor not above 0.
    """

    models = frozenset({"global", "local"})
    optional = frozenset({"updated"})

    def __init__(self, floor: float = 1.0) -> None:
        self.floor = in_range("query 'kafal'", "floor", floor, 1e-12)

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        counts = torch.bincount(query.labels, minlength=query.n_classes).double().clamp_min(self.floor).log()
        own = query.pool["updated" if "updated" in query.pool else "local"].logits
        return highest(symmetric_divergence(own + counts, query.pool["global"].logits + counts), query.budget)
