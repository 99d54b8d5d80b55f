"""FedRep: a shared backbone and private heads, trained one after the other in every round.

Collins et al., "Exploiting Shared Representations for Personalized Federated Learning", ICML 2021. The paper trains the
head for ten epochs and then the backbone for one; here a round has the steps that every method has, and ``head`` is the
head's share of them. The server averages the backbone.
"""

from typing import Any

from flwr.serverapp.strategy import Strategy

from fedimb.contracts.fedrep import FedRepSettings
from fedimb.registry import register
from fedimb.strategies.base import Method


@register(
    "strategy",
    "fedrep",
    tasks=("multiclass", "multilabel"),
    unknown_labels=("cells", "coarse"),
    own_models=("kinds", "private"),
    needs_private=("head",),
)
class FedRep(Method):
    """FedRep: a shared backbone and private heads, trained one after the other in every round.

    Args:
        inner: the aggregator of the backbone.
        settings: a `FedRepSettings`; or give its fields by name: ``FedRep(FedAvg(), head=0.5)``.
    """

    def __init__(self, inner: Strategy, settings: FedRepSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = FedRepSettings.of(settings, fields)
