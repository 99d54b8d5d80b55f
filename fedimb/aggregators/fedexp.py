"""FedExP at the server: the more the clients' updates differ, the larger the server's step along their mean."""

from collections.abc import Mapping

import numpy as np

from fedimb.aggregators.server_optimizer import Clients, ServerOptimizer, squared_norm
from fedimb.contracts.optimizer import SQUARED_NORM
from fedimb.contracts.platform import WEIGHT
from fedimb.plain import StateDict
from fedimb.registry import register
from fedimb.registry.arguments import Positive, in_range


@register("aggregator", "fedexp")
class FedExP(ServerOptimizer):
    """FedExP: FedAvg with a server step size that adapts to how far the clients' updates disagree.

    Jhunjhunwala, Wang & Joshi, ICLR 2023: server step size max(1, mean ||d_k||^2 / (2 (||mean d_k||^2 + epsilon))).

    The paper weights clients equally (``aggregation_weight=uniform``); with other weights both means are weighted.

    Args:
        epsilon: added to the squared norm of the mean update, > 0; a larger value gives smaller steps.
    """

    scalars = (SQUARED_NORM,)

    def __init__(self, epsilon: Positive = 1e-3) -> None:
        super().__init__()
        self.epsilon = in_range("aggregator 'fedexp'", "epsilon", epsilon, 0, low_allowed=False)

    def aggregate(
        self,
        previous: Mapping[str, np.ndarray],
        mean: Mapping[str, np.ndarray],
        clients: Clients,
        state: StateDict,
    ) -> Mapping[str, np.ndarray]:
        """The mean update times the step size."""
        spread = np.average(clients[SQUARED_NORM], weights=clients[WEIGHT])
        eta = max(1.0, float(spread) / (2 * (squared_norm(mean) + self.epsilon)))
        return {name: previous[name] + eta * update for name, update in mean.items()}
