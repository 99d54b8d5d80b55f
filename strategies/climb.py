"""CLIMB: clients whose loss is above the mean gain weight, until all are near it.

Shen, Cervino, Hassani & Ribeiro, "An Agnostic Approach to Federated Learning with Class Imbalance", ICLR 2022. A dual
step is taken before every phase of training rounds: the weights a_k = 1 + lambda_k - mean(lambda) of the phase come
from the duals before the step; then lambda_k <- clip(lambda_k + eta (f_k - mean f - epsilon) / K, 0, dual_max), f_k
the mean loss of client k at the model before the phase. In the phase w <- w + lr / |S| sum_{k in S} a_k Delta_k: the
weights of the clients of a round need not add up to |S|.

It helps clients, and classes only where the clients that hold them hold little else. A weight below 0, which one large
dual would give to all others, counts as 0. A client that does not report keeps its dual.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from fedimb.aggregators.server_optimizer import Clients, ServerOptimizer
from fedimb.contracts.climb import LOSS, LOSSES, ClimbSettings
from fedimb.contracts.optimizer import CLIENT
from fedimb.contracts.platform import WEIGHT
from fedimb.errors import ConfigError
from fedimb.plain import StateDict
from fedimb.records import arrays_of
from fedimb.registry import register
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.steps import Query, Rounds
from fedimb.strategies.base import Method, Program


def multipliers(duals: Mapping[int, float]) -> dict[int, float]:
    """a_k by client id, at least 0."""
    mean = float(np.mean(list(duals.values()))) if duals else 0.0
    return {client: max(1.0 + dual - mean, 0.0) for client, dual in duals.items()}


def dual_step(
    duals: Mapping[int, float], losses: Mapping[int, float], lr: float, tolerance: float, most: float
) -> dict[int, float]:
    """The duals after a step, by client id; without a loss a client keeps its own, 0 at first.

    Args:
        losses: mean loss by client id; a value that is not finite counts as not reported.
    """
    known = {client: loss for client, loss in losses.items() if np.isfinite(loss)}
    new = dict.fromkeys(losses, 0.0) | dict(duals)
    if not known:
        return new
    mean = float(np.mean(list(known.values())))
    for client, loss in known.items():
        new[client] = float(np.clip(new[client] + lr * (loss - mean - tolerance) / len(known), 0.0, most))
    return dict(sorted(new.items()))


class WeightedSum(ServerOptimizer):
    """w + lr / |S| sum_{k in S} a_k Delta_k, the clients counted equally otherwise.

    Args:
        lr: server step size.

    Attributes:
        by_client: a_k by client id, set before every round; 1 for a client that is not named.
    """

    transient: ClassVar[tuple[str, ...]] = ("_previous", "by_client")

    def __init__(self, lr: float = 1.0) -> None:
        super().__init__()
        self.lr = lr
        self.by_client: dict[int, float] = {}

    def weights(self, client: Mapping[str, float]) -> dict[str, float]:
        """a_k, for a client that trained."""
        return {"mean": client[WEIGHT] * self._weight(int(client[CLIENT]))}

    def largest_weights(self, most: float) -> dict[str, float]:
        """The client's own weight times the largest a_k."""
        return {"mean": most * max([1.0, *self.by_client.values()])}

    def _weight(self, client: int) -> float:
        return self.by_client.get(client, 1.0)

    def aggregate(
        self, previous: Mapping[str, np.ndarray], mean: Mapping[str, np.ndarray], clients: Clients, state: StateDict
    ) -> Mapping[str, np.ndarray]:
        """The weighted mean of the updates, times the weights' sum over the number of clients."""
        given = np.array([self._weight(int(client)) for client in clients[CLIENT]])
        counted = clients[WEIGHT].sum()
        scale = self.lr * float((given * clients[WEIGHT]).sum() / counted) if counted else 0.0
        return {name: previous[name] + scale * update for name, update in mean.items()}


@register("strategy", "climb", own_aggregator=True, weighs_clients=True, innermost=True)
class Climb(Method):
    """CLIMB: clients whose loss is above the mean gain weight.

    Args:
        inner: FedAvg, which is replaced by the weighted sum of the clients' updates.
        settings: a `ClimbSettings`; or give its fields by name: ``Climb(FedAvg(), dual_lr=0.5)``.

    Raises:
        ConfigError: another aggregator, or another method inside this one.
    """

    def __init__(self, inner: Strategy, settings: ClimbSettings | None = None, **fields: Any) -> None:
        self.settings = ClimbSettings.of(settings, fields)
        if type(inner) is not FedAvg:
            what = type(inner).__name__
            raise ConfigError(
                f"strategy 'climb' aggregates itself and cannot wrap {what}: set aggregator=fedavg, and name climb "
                "last of several strategies"
            )
        self._sum = WeightedSum(self.settings.server_lr)
        self.weights: dict[str, float] = {}
        super().__init__(self._sum)

    def state_dict(self) -> StateDict:
        """Also the weights of the clients in this phase, by client id as text."""
        return super().state_dict() | {"weights": self.weights}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """FedAvg's messages; the aggregator gets the clients' weights of this phase."""
        self._sum.by_client = {int(client): weight for client, weight in self.weights.items()}
        return super().configure_train(server_round, arrays, config, grid)

    def program(self, run: RunContext) -> Program:
        """Before each phase: all clients' losses, the phase's weights from the duals so far, and a dual step."""
        own, duals, left = self.settings, dict[int, float](), run.rounds
        while left > 0:
            replies = yield Query(LOSSES, model="global")
            losses = {reply.client: float(arrays_of(reply.content, LOSS)["mean"][0]) for reply in replies}
            duals = dict.fromkeys(losses, 0.0) | duals
            self.weights = {str(client): weight for client, weight in multipliers(duals).items()}
            duals = dual_step(duals, losses, own.dual_lr, own.tolerance, own.dual_max)
            self.memory["largest_dual"] = max(duals.values(), default=0.0)
            rounds = min(own.phase, left)
            yield Rounds(rounds)
            left -= rounds

    def on_train_replies(self, server_round: int, replies: Any) -> dict[str, float]:
        """The largest weight and dual variable of the phase."""
        if not self.weights:
            return {}
        return {
            "data/largest_weight": max(self.weights.values()),
            "data/largest_dual": float(self.memory["largest_dual"]),
        }
