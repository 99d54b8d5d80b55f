"""FedNH: the head is a set of class prototypes, fixed at the clients and moved slowly by the server.

Dai et al., "Tackling Data Heterogeneity in Federated Learning with Class Prototypes", AAAI 2023. Clients train the body
and a scale s by cross-entropy of s <unit(h), W_c> (``model.head=prototype``), then report n_kc mu_kc and n_kc, mu_kc
the direction of the mean of the rows' directions. Server: W_c <- unit(rho W_c + (1 - rho) unit(sum_k n_kc mu_kc /
sum_k n_kc)); a class that nobody of the round reported keeps W_c. Body and s are averaged equally over the clients.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedimb.contracts.fednh import PROTOTYPES, FedNHSettings
from fedimb.errors import RunFailed
from fedimb.records import array_record, arrays_of, to_numpy
from fedimb.registry import register
from fedimb.serverapp.steps import Reply
from fedimb.strategies.base import Method

HEAD = "head.weight"


def moved_prototypes(old: np.ndarray, sums: np.ndarray, counts: np.ndarray, rho: float) -> np.ndarray:
    """The new prototypes [C, d] float64.

    Args:
        old: [C, d].
        sums: [C, d], the clients' n_kc mu_kc added up.
        counts: [C], their n_kc added up; a class with 0 keeps its prototype.
        rho: weight of the old prototype.
    """
    old = old.astype(np.float64)
    held = (counts > 0) & (np.linalg.norm(sums, axis=1) > 0)
    new = old.copy()
    new[held] = _unit(rho * old[held] + (1 - rho) * _unit(sums[held].astype(np.float64)))
    return new


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: np.ndarray = rows / np.where(lengths > 0, lengths, 1.0)
    return scaled


@register("strategy", "fednh", needs_head="prototype", reveals_counts=True, any_phase=True)
class FedNH(Method):
    """FedNH: the head is a set of class prototypes, fixed at the clients and moved slowly by the server.

    Args:
        inner: the aggregator of the body.
        settings: a `FedNHSettings`; or give its fields by name: ``FedNH(FedAvg(), rho=0.99)``.
    """

    transient: ClassVar[tuple[str, ...]] = ("_sums", "_counts", "_old")

    def __init__(self, inner: Strategy, settings: FedNHSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = FedNHSettings.of(settings, fields)
        self._old: np.ndarray | None = None
        self._sums = self._counts = np.zeros(0)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages; the prototypes sent are kept until the replies arrive.

        Raises:
            RunFailed: the model has no head of prototypes.
        """
        sent = to_numpy(arrays)
        if HEAD not in sent:
            raise RunFailed(
                "strategy 'fednh' replaces the rows of the head, and this model sends none: use model.head=prototype"
            )
        self._old = sent[HEAD].copy()
        return super().configure_train(server_round, arrays, config, grid)

    def before_aggregation(self, server_round: int, replies: Sequence[Reply]) -> None:
        """Add up the clients' prototypes."""
        found = [arrays_of(reply.content, PROTOTYPES) for reply in replies]
        if found:
            self._sums = np.sum([one["sums"].astype(np.float64) for one in found], axis=0)
            self._counts = np.sum([one["counts"] for one in found], axis=0)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The inner strategy's weights with the moved prototypes."""
        merged, metrics = super().aggregate_train(server_round, replies)
        if merged is None or self._old is None or not len(self._sums):
            return merged, metrics
        new = moved_prototypes(self._old, self._sums, self._counts, self.settings.rho)
        weights = to_numpy(merged) | {HEAD: new.astype(self._old.dtype)}
        self._sums = self._counts = np.zeros(0)
        return array_record(weights), metrics
