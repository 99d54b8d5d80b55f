"""The method that adds nothing: only the aggregator."""

from flwr.serverapp.strategy import Strategy

from fedimb.registry import register
from fedimb.strategies.base import Method


@register(
    "strategy",
    "plain",
    cohorts_only=True,
    any_pace=True,
    any_phase=True,
    from_sum=True,
    tasks=("multiclass", "multilabel"),
    unknown_labels=("cells", "coarse"),
    own_models=("kinds", "private"),
)
class Plain(Method):
    """Runs ``rounds`` training rounds with the inner aggregator."""

    def __init__(self, inner: Strategy) -> None:
        super().__init__(inner)
