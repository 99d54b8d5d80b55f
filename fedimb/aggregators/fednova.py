"""FedNova at the server: updates are normalised by the effective number of local steps, then averaged."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedimb.aggregators.server_optimizer import Clients, ServerOptimizer
from fedimb.contracts.platform import WEIGHT
from fedimb.errors import ConfigError
from fedimb.plain import StateDict
from fedimb.registry import register
from fedimb.registry.arguments import Decay, in_range


@register("aggregator", "fednova", heavy_ball=True, mirrors={"momentum": "momentum", "optimizer": "optimizer"})
class FedNova(ServerOptimizer):
    """FedNova: updates normalised by the clients' numbers of steps.

    Wang et al., NeurIPS 2020: w <- w + (sum p_k a_k) sum p_k d_k / a_k, so that more local steps do not mean more
    weight.

    p_k is the client's share of the weights; a_k its number of steps, or with momentum the sum of all gradients'
    coefficients. With equal steps it is FedAvg.

    Args:
        momentum: of the clients' SGD, in [0, 1).
        optimizer: of the clients; ``adam`` is refused (ConfigError), because a_k is not known for it.
    """

    scalars = ("steps",)

    def __init__(self, momentum: Decay = 0.0, optimizer: str = "sgd") -> None:
        super().__init__()
        if optimizer != "sgd":
            raise ConfigError(f"aggregator fednova knows the steps of sgd, not of {optimizer}; set local.optimizer=sgd")
        self.momentum = in_range("aggregator 'fednova'", "momentum", momentum, 0, 1, high_allowed=False)

    def length(self, steps: np.ndarray | float) -> Any:
        """a_k: sum over s = 1..steps of (1 - momentum^s) / (1 - momentum)."""
        rest = 1 - self.momentum
        return (steps - self.momentum * (1 - self.momentum**steps) / rest) / rest

    def weights(self, client: Mapping[str, float]) -> dict[str, float]:
        """p_k / a_k, up to the common factor; 0 for a client without a step."""
        return {"mean": client[WEIGHT] / self.length(client["steps"]) if client["steps"] else 0.0}

    def largest_weights(self, most: float) -> dict[str, float]:
        """a_k is at least 1: a client's own weight."""
        return {"mean": most}

    def aggregate(
        self,
        previous: Mapping[str, np.ndarray],
        mean: Mapping[str, np.ndarray],
        clients: Clients,
        state: StateDict,
    ) -> Mapping[str, np.ndarray]:
        """The mean of normalised updates, times the mean length."""
        share, length = clients[WEIGHT] / clients[WEIGHT].sum(), self.length(clients["steps"])
        normalised = np.divide(share, length, out=np.zeros_like(share), where=length > 0).sum()
        scale = (share @ length) * normalised
        return {name: previous[name] + scale * update for name, update in mean.items()}
