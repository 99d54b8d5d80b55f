"""FedDyn at the server; its local objective is `fedimb.training.objectives.dynamic_regularizer`."""

from collections.abc import Mapping

import numpy as np

from fedimb.aggregators.server_optimizer import CLIENT, Clients, ServerOptimizer
from fedimb.contracts.platform import WEIGHT
from fedimb.plain import StateDict
from fedimb.registry import register
from fedimb.registry.arguments import Positive, in_range


@register("aggregator", "feddyn", moves_alone=True)
class FedDyn(ServerOptimizer):
    """FedDyn: a dynamic regulariser in the clients' loss, corrected at the server.

    Acar et al., ICLR 2021: h <- h - (alpha / N) sum d_k, then w <- mean w_k - h / alpha.

    h is the unweighted mean of the states that clients keep. The paper averages w_k in the same way
    (``aggregation_weight=uniform``); later implementations weight w_k by rows.

    Args:
        n_clients: N, all clients that hold data (given by fedimb).
        alpha: strength of the local objective, > 0.
    """

    def __init__(self, n_clients: int, alpha: Positive = 0.1) -> None:
        super().__init__()
        self.n_clients = n_clients
        self.alpha = in_range("aggregator 'feddyn'", "alpha", alpha, 0, low_allowed=False)

    def weights(self, client: Mapping[str, float]) -> dict[str, float]:
        """The weight in the model's mean, and in the unweighted mean that h needs."""
        return {"mean": client[WEIGHT], "uniform": 1.0}

    def largest_weights(self, most: float) -> dict[str, float]:
        """The client's own weight, and 1."""
        return {"mean": most, "uniform": 1.0}

    def aggregate(
        self,
        previous: Mapping[str, np.ndarray],
        mean: Mapping[str, np.ndarray],
        clients: Clients,
        state: StateDict,
    ) -> Mapping[str, np.ndarray]:
        """Update h by the mean update, and the weights by h."""
        part = self.alpha * len(clients[CLIENT]) / self.n_clients
        before = state.get("h", {})
        state["h"] = {k: before.get(k, 0.0) - part * update for k, update in clients.means["uniform"].items()}
        return {k: previous[k] + update - state["h"][k] / self.alpha for k, update in mean.items()}
