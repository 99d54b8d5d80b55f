"""RUCR: features are pulled to class prototypes that all clients share, and the head is re-trained on their mixtures.

"RUCR", Information Processing & Management 2024. Before every round all clients report, under the global model, the sum
of each class's features and its rows (`x.prototypes`). mu_c = sum_k n_kc m_kc / sum_k n_kc goes out with the round,
whose clients add `UnifiedContrast` to their loss. After the last round nu_c = sum_k n_kc unit(m_kc) / sum_k n_kc goes
out, every client re-trains the head on mixtures of it with its own features, and the mean of the heads by rows becomes
the model's (a `Replace`, scored as a separate round).

The class shares of the contrast are those of the run's prior; the paper's are the round's participants'. The re-trained
head is for scoring only, so it is made once and not, as there, in each of the last 20 rounds.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch.nn.functional import normalize

from fedimb.contracts.rucr import HEAD, HEAD_OF, PROTOTYPES, PROTOTYPES_OF, UNIFIED, RucrSettings
from fedimb.errors import ConfigError, RunFailed
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Replace, Reply, Rounds
from fedimb.strategies.base import (
    KeepsWeights,
    Program,
    refuse_inner_method,
    refuse_without_linear_head,
    sent_along,
)


def unified(found: Sequence[tuple[np.ndarray, np.ndarray]], directions: bool = False) -> np.ndarray:
    """Prototypes [C, d] float64 of the clients' sums [C, d] and counts [C]; 0 for a class that nobody reported.

    Args:
        directions: whether a client's mean counts with its direction only: nu instead of mu.
    """
    rows = np.sum([counts for _, counts in found], axis=0, dtype=np.float64)
    parts = [_directions(sums) * counts[:, None] if directions else sums for sums, counts in found]
    total: np.ndarray = np.sum(parts, axis=0, dtype=np.float64) / np.maximum(rows, 1.0)[:, None]
    return total


def _directions(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = normalize(torch.from_numpy(rows.astype(np.float64)), dim=1).numpy()
    return unit


def mean_head(found: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The clients' heads averaged by their rows: ``weight`` [C, d] and ``bias`` [C] float32."""
    rows = np.array([one["rows"][0] for one in found], np.float64)
    share = rows / rows.sum()
    return {
        part: np.sum([s * one[part].astype(np.float64) for s, one in zip(share, found, strict=True)], axis=0).astype(
            np.float32
        )
        for part in ("weight", "bias")
    }


@register(
    "strategy",
    "rucr",
    adjusts_logits=True,
    needs_prior=True,
    reveals_counts=True,
    innermost=True,
    builds_head=True,
)
class Rucr(KeepsWeights):
    """RUCR: features are pulled to class prototypes that all clients share, and the head is re-trained on mixtures.

    Args:
        inner: the aggregator of the rounds.
        settings: a `RucrSettings`; or give its fields by name: ``Rucr(FedAvg(), beta=0.5)``.

    Raises:
        ConfigError: another method inside this one.
    """

    def __init__(self, inner: Strategy, settings: RucrSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = RucrSettings.of(settings, fields)
        refuse_inner_method("rucr", inner)

    def check_server(self, server: Server) -> None:
        """Refuse a model without a linear head that has a bias."""
        refuse_without_linear_head("rucr", server.model())

    def program(self, run: RunContext) -> Program:
        """Prototypes before every round and after the last; then the heads, whose mean becomes the model's."""
        if run.server is None:
            raise ConfigError("strategy=rucr needs fedimb's own server: run it with fedimb, not in a plain ServerApp")
        for _ in range(run.rounds):
            replies = yield Query(PROTOTYPES_OF, model="global")
            self.memory["unified"] = unified(_sums(replies)).astype(np.float32)
            yield Rounds(1)
        if not self.settings.head_epochs:
            return
        replies = yield Query(PROTOTYPES_OF, model="global")
        content = RecordDict({UNIFIED: array_record({"prototypes": unified(_sums(replies), True).astype(np.float32)})})
        replies = yield Query(HEAD_OF, content, model="global")
        heads = [arrays_of(reply.content, HEAD) for reply in replies]
        if not sum(int(head["rows"][0]) for head in heads):
            raise RunFailed("strategy=rucr: no client re-trained the head")
        made = mean_head(heads)
        yield Replace(self.aggregated(run.server) | {f"head.{part}": value for part, value in made.items()})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages with the prototypes; without, before they are known."""
        messages = super().configure_train(server_round, arrays, config, grid)
        if "unified" not in self.memory:
            return messages
        return sent_along(messages, UNIFIED, array_record({"prototypes": np.asarray(self.memory["unified"])}))


def _sums(replies: Sequence[Reply]) -> list[tuple[np.ndarray, np.ndarray]]:
    if not replies:
        raise RunFailed("strategy=rucr: no client reported its class sums")
    found = [arrays_of(reply.content, PROTOTYPES) for reply in replies]
    return [(one["sums"], one["counts"]) for one in found]
