"""SCAFFOLD at the server: FedAvg of the weights, and the mean c of the clients' control variates.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, algorithm 1 with
global step size 1: c <- c + (|S| / N) mean_{k in S} (c_k^+ - c_k) = c + (1/N) sum_{k in S} (c_k^+ - c_k).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedimb.by_reference import view
from fedimb.contracts.variate import SINCE, VARIATE
from fedimb.errors import RunFailed
from fedimb.records import array_record
from fedimb.registry import register


@register("aggregator", "scaffold", linear=False)
class Scaffold(FedAvg):
    """SCAFFOLD: control variates correct the drift of the clients.

    Sends c with every train message and updates it from the ``x.variate`` of the replies.

    c is the unweighted mean, as in the paper, so SCAFFOLD minimises the unweighted mean of the clients' losses,
    however the weights are averaged: compare it with others under ``aggregation_weight=uniform``.

    Args:
        n_clients: N, all clients that hold data (given by fedimb).

    Attributes:
        reads: the records that the adapter passes to `aggregate_train`.
        variate: c by parameter name, float64; sent in the parameter's own dtype.
        since: the round in which c started at 0; clients reset their c_k when it changes.
    """

    reads = (VARIATE.key,)

    def __init__(self, n_clients: int) -> None:
        super().__init__(fraction_train=1.0, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.n_clients = n_clients
        self.variate: dict[str, np.ndarray] = {}
        self.since = 0

    def state_dict(self) -> dict[str, Any]:
        """c, and the round in which it started."""
        return {"variate": self.variate, "since": self.since}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """FedAvg's messages, with c."""
        if not self.since:
            self.since = server_round
            self.variate = {k: np.zeros(tuple(a.shape)) for k, a in arrays.items()}
        config[SINCE] = self.since
        sent = array_record({k: self.variate[k].astype(a.dtype) for k, a in arrays.items()})
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            message.content = RecordDict({**message.content, VARIATE.key: sent})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """FedAvg of the weights; c moves by the sum of the changes over N.

        Raises:
            RunFailed: a reply without a variate, or with one for another model.
        """
        replies = [reply for reply in replies if not reply.has_error()]
        shapes = {k: v.shape for k, v in self.variate.items()}
        changes = []
        for reply in replies:
            if VARIATE.key not in reply.content:
                raise RunFailed(
                    f"round {server_round}: aggregator scaffold got a reply without '{VARIATE.key}'; give the clients "
                    "the local objective control_variate (aggregator.objectives=[control_variate])"
                )
            change = {k: view(a) for k, a in reply.content.array_records[VARIATE.key].items()}
            if {k: v.shape for k, v in change.items()} != shapes:
                raise RunFailed(
                    f"round {server_round}: a reply's '{VARIATE.key}' does not match this model's parameters"
                )
            changes.append(change)
            del reply.content[VARIATE.key]  # Flower's FedAvg expects one ArrayRecord per reply
        result = super().aggregate_train(server_round, replies)
        for name in self.variate:
            total = sum((change[name].astype(np.float64) for change in changes), np.zeros(shapes[name]))
            self.variate[name] = self.variate[name] + total / self.n_clients
        return result
