"""Robust aggregators that give rare classes back some of what a median takes: bucketing, class_aware_median.

A coordinate-wise median follows the majority of clients. What only few clients hold, such as the rows of a rare class,
is an outlier to it, whether they attack or not.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedimb.by_reference import view
from fedimb.contracts import platform as names
from fedimb.records import Arrays, array_record
from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount, Range
from fedimb.seeds import Stream, numpy_rng

HEAD, BIAS = "head.weight", "head.bias"


class _EveryReply(FedAvg):
    """FedAvg's messages to all clients of the round, and an aggregate of all replies by name.

    Subclasses override `combine`.
    """

    def __init__(self) -> None:
        super().__init__(fraction_train=1.0, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)

    def combine(self, server_round: int, stacked: Arrays) -> Arrays:
        """The new weights from those of all K clients, by name [K, *shape] float64, clients by id."""
        raise NotImplementedError(f"{type(self).__name__} must override combine")

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """See `FedAvg.aggregate_train`; metrics are FedAvg's."""
        usable = [reply for reply in replies if not reply.has_error()]
        mean, metrics = super().aggregate_train(server_round, usable)
        if mean is None:
            return None, None
        records = [reply.content.array_records[names.ARRAYS] for reply in usable]
        stacked = {key: np.stack([view(record[key]).astype(np.float64) for record in records]) for key in mean}
        return array_record(self.combine(server_round, stacked)), metrics


@register("aggregator", "bucketing", linear=False)
class Bucketing(_EveryReply):
    """The coordinate-wise median, or trimmed mean, of the means of random groups of clients.

    Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022,
    algorithm 1: groups are drawn anew in every round. Groups differ less than clients do, so less of what few hold is
    lost; an attacker spoils its whole group, so it withstands ``size`` times fewer attackers.

    Args:
        size: clients in a group; 1 is the rule itself.
        rule: ``median`` or ``trimmed_mean`` over the groups.
        beta: share of the groups that ``trimmed_mean`` leaves out at either end.
        seed: of the run; groups are drawn from it.
    """

    def __init__(
        self,
        seed: int = 0,
        size: PositiveCount = 2,
        rule: Literal["median", "trimmed_mean"] = "median",
        beta: Annotated[float, Range(0, 0.5, high_allowed=False)] = 0.2,
    ) -> None:
        super().__init__()
        self.size, self.rule, self.beta, self.seed = size, rule, beta, seed

    def combine(self, server_round: int, stacked: Arrays) -> Arrays:
        """See `_EveryReply.combine`."""
        clients = len(next(iter(stacked.values())))
        order = numpy_rng(self.seed, Stream.BUCKETS, server_round).permutation(clients)
        groups = [order[at : at + self.size] for at in range(0, clients, self.size)]
        found = {}
        for key, values in stacked.items():
            means = np.stack([values[group].mean(axis=0) for group in groups])
            found[key] = np.median(means, axis=0) if self.rule == "median" else trimmed_mean(means, self.beta)
        return found


def trimmed_mean(values: np.ndarray, beta: float) -> np.ndarray:
    """Mean over axis 0 without the floor(beta K) smallest and largest of each coordinate.

    Example:
        >>> trimmed_mean(np.array([[1.0], [2.0], [3.0], [90.0]]), 0.25)
        array([2.5])
    """
    cut = int(beta * len(values))
    ordered = np.sort(values, axis=0)
    kept: np.ndarray = ordered[cut : len(values) - cut].mean(axis=0)
    return kept


@register("aggregator", "class_aware_median", linear=False, needs_head_bias=True)
class ClassAwareMedian(_EveryReply):
    """The coordinate-wise median; in the head, each class's row from those who hold the class and those who do not.

    Training on a class raises its bias, training without it lowers it. So the sign of a client's update of a class's
    bias tells holders from others without asking for counts. The new row of a class is the median of the holders' rows
    and the median of the others', weighted by how many they are: an estimate of the mean, where the median over all
    would be that of the larger part. A part of fewer than ``fewest`` clients is too small for a median, and the class
    then gets the median over all.

    It withstands fewer than half of each part. A few attackers that pose as holders of a class that few hold are a
    majority there (attack ``rare_mimic``). A run refuses a model whose head has no trained bias; in a plain ServerApp
    such a model gets the median over all.

    Args:
        fewest: clients that a part must have.
    """

    def __init__(self, fewest: PositiveCount = 3) -> None:
        super().__init__()
        self.fewest = fewest
        self._sent: np.ndarray | None = None

    transient = ("_sent",)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """FedAvg's messages; the sent biases are kept until the replies arrive."""
        self._sent = view(arrays[BIAS]).astype(np.float64) if HEAD in arrays and BIAS in arrays else None
        return super().configure_train(server_round, arrays, config, grid)

    def combine(self, server_round: int, stacked: Arrays) -> Arrays:
        """See `_EveryReply.combine`."""
        found = {key: np.median(values, axis=0) for key, values in stacked.items()}
        sent, self._sent = self._sent, None
        if sent is None:
            return found
        holders = stacked[BIAS] > sent  # [K, C]
        for one in range(holders.shape[1]):
            own = holders[:, one]
            if min(own.sum(), (~own).sum()) < self.fewest:
                continue
            share = own.mean()
            for key in (HEAD, BIAS):
                parts = (np.median(stacked[key][part, one], axis=0) for part in (own, ~own))
                found[key][one] = sum(w * part for w, part in zip((share, 1 - share), parts, strict=True))
        return found
