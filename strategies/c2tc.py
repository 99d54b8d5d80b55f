"""One-shot condensation: each client sends centroids of groups of alike rows once, and the server trains on them.

C2TC (arXiv 2602.21717) condenses a table without training: classes get clusters by how spread out they are, and each
cluster's centroid stands for its rows (`fedimb.selection.condensation` has our reading). Sending them from clients to a
server is not from the paper. A group of one would be a patient's record, so every group has ``min_count`` people, and a
class of fewer sends nothing; no noise is added. The means of small groups of alike rows still lie near those rows.

The rows are those that the model gets: scaled numbers, with the categories of a table as shares of the group. The mean
of pictures is a blur: it is for tables and embeddings.
"""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from flwr.app import RecordDict
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedimb.contracts.c2tc import CENTROIDS, CENTROIDS_OF, C2tcSettings
from fedimb.errors import ConfigError, RunFailed
from fedimb.models.base import parameters_of
from fedimb.records import Arrays, array_record, arrays_of
from fedimb.registry import register
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Replace, ServerWork
from fedimb.strategies.base import Method, Program

log = logging.getLogger("fedimb")


@register(
    "strategy",
    "c2tc",
    reveals_counts=True,
    reads_labels=True,
    trains_no_client="use=only",
    sets_prior=True,
    when={("use", "init"): {"trains_no_client": "", "sets_prior": False}},
)
class C2tc(Method):
    """One-shot condensation: the server trains on centroids that each client sends once.

    Args:
        inner: the aggregator or method that trains after (init); unused with use=only.
        settings: a `C2tcSettings`; or give its fields by name: ``C2tc(FedAvg(), keep=0.01)``.

    Raises:
        ConfigError: a value out of range, or a method around which nothing is trained.
    """

    def __init__(self, inner: Strategy, settings: C2tcSettings | None = None, **fields: object) -> None:
        super().__init__(inner)
        self.settings = C2tcSettings.of(settings, fields)
        if self.settings.use == "only" and isinstance(inner, Method):
            raise ConfigError("strategy.c2tc.use=only trains no client, so another method has no effect: remove it")

    def check_server(self, server: Server) -> None:
        """Refuse updates that are clipped so that they show little, beside means of rows that show more."""
        if server.clips():
            raise ConfigError(
                "strategy=c2tc sends means of small groups of rows, which privacy.clip does not bound: set "
                "privacy.clip=null, or use another strategy"
            )

    def program(self, run: RunContext) -> Program:
        """Ask for centroids, train on them; then the inner program with ``use=init``."""
        server = run.server
        if server is None:
            raise ConfigError("strategy=c2tc needs a server that trains: run it with fedimb, not in a plain ServerApp")
        replies = yield Query(CENTROIDS_OF)
        found = [arrays_of(reply.content, CENTROIDS) for reply in replies]
        self._note(run, found)
        x, y = pooled(found, self.settings.weighted, server.input_shape())
        if not len(y):
            text = f"strategy=c2tc: no client has min_count={self.settings.min_count} people of any class"
            if self.settings.use == "only":
                raise RunFailed(f"{text}; lower it")
            log.warning("%s: training starts from the initial weights", text)
            yield from self.inner_program(run)
            return
        made = yield ServerWork("c2tc_train", lambda: self._trained(server, x, y))
        weights = arrays_of(made, "weights")
        if self.settings.use == "init":
            run.initial = weights
            yield from self.inner_program(run)
            return
        run.trained_on(np.bincount(y.numpy(), minlength=run.n_classes))
        yield Replace({name: weights[name] for name in parameters_of(server.model())})

    def _trained(self, server: Server, x: Tensor, y: Tensor) -> RecordDict:
        weights = server.train(server.model(), x, y, self.settings.epochs)
        return RecordDict({"weights": array_record(weights)})

    def _note(self, run: RunContext, found: Sequence[Arrays]) -> None:
        """Keep how many groups of how many rows there are of each class."""
        sizes = [one["rows"] for one in found]
        groups = np.sum([(rows > 0).sum(axis=1) for rows in sizes], axis=0)
        held = np.sum([rows.sum(axis=1) for rows in sizes], axis=0)
        self.memory |= {"groups": groups.astype(np.int64), "rows": held.astype(np.int64)}


def pooled(found: Sequence[Arrays], weighted: bool, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The clients' centroids as rows [n, *shape] float32 and classes [n] int64, by client, then by class.

    Args:
        found: ``centres`` [C, m, F] and ``rows`` [C, m] of each client. A group without rows, or whose centroid is not
            finite, is left out.
        weighted: whether each centroid comes as often as its group has rows.
        shape: of one row, of F values.
    """
    rows, classes = [np.zeros((0, math.prod(shape)), np.float32)], [np.zeros(0, np.int64)]
    for one in found:
        label, at = np.nonzero((one["rows"] > 0) & np.isfinite(one["centres"]).all(axis=2))
        times = one["rows"][label, at] if weighted else np.ones(len(label), dtype=np.int64)
        rows.append(np.repeat(one["centres"][label, at], times, axis=0).astype(np.float32))
        classes.append(np.repeat(label, times))
    return torch.from_numpy(np.concatenate(rows).reshape(-1, *shape)), torch.from_numpy(np.concatenate(classes)).long()
