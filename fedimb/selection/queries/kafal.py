"""Rows on which a client's own model and the federation's disagree, seen through the client's label counts.

KAFAL: Cao et al., "Knowledge-Aware Federated Active Learning with Non-IID Data", ICCV 2023; its sampling half (KSAS):
the symmetric Kullback-Leibler divergence between both softmaxes after adding log(labelled count of the class) to both
logits, which tilts them to the classes the client knows. Its training half (KCFU) is ``strategy.active.kcfu``. The own
model is the client's weights after its last round (``updated``); where the caller has none, the local-only one.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.queries.base import Asked, QueryRule
from fedimb.selection.uncertainty import highest


def symmetric_divergence(one: Tensor, two: Tensor) -> Tensor:
    """KL(p | q) + KL(q | p) of each row's softmaxes: logits [n, C] twice -> [n] float64, at least 0."""
    p, q = one.double().log_softmax(1), two.double().log_softmax(1)
    return ((p.exp() - q.exp()) * (p - q)).sum(1)


@register("query", "kafal")
class Kafal(QueryRule):
    """Args:
    floor: count of a class without labels, above 0. The log of 0 that the paper's formula asks for makes the
        divergence undefined; 1 (ours) counts an absent class like one seen once.

    Raises:
        ConfigError: a floor not above 0.
    """

    models = frozenset({"global", "local"})
    optional = frozenset({"updated"})

    def __init__(self, floor: float = 1.0) -> None:
        self.floor = in_range("query 'kafal'", "floor", floor, 1e-12)

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`."""
        counts = torch.bincount(asked.labels, minlength=asked.n_classes).double().clamp_min(self.floor).log()
        own = asked.pool["updated" if "updated" in asked.pool else "local"].logits
        return highest(symmetric_divergence(own + counts, asked.pool["global"].logits + counts), asked.budget)
