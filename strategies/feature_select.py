"""Feature selection before training: columns by mutual information from pooled counts, or by the model's weights.

``rule=mi``: every client counts its rows by class in ten bins of each column, whose edges follow from the mean and
deviation over all clients; the sum of the counts is exactly that of all rows together, and so is the mutual information
(`fedimb.selection.mutual_information`). ``rule=rfe``: recursive feature elimination (Guyon et al., "Gene Selection for
Cancer Classification using Support Vector Machines", Machine Learning 2002) on the global model: after ``warmup``
rounds the columns with the smallest sums of squared weights in the first layer are dropped, ``steps`` times; nothing
but the model leaves a client.

A dropped column is 0 in training and has weights of 0, so that predictions do not depend on it: the model's file, which
takes rows with all columns, says so by its weights. Columns are the model's inputs: each category of a table is one.
"""

import json
import math
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import nn

from fedimb.contracts.feature_select import (
    COUNTS,
    COUNTS_OF,
    KEEP,
    KEPT,
    MASKED_COUNTS_OF,
    MASKED_SUMS_OF,
    SCALE,
    SUMS,
    SUMS_OF,
    FeatureSelectSettings,
)
from fedimb.errors import ConfigError, RunFailed
from fedimb.models.base import Classifier, parameters_of
from fedimb.models.logistic import Logistic
from fedimb.models.mlp import MLP
from fedimb.privacy.secure_sum import from_fixed
from fedimb.records import Arrays, array_record, arrays_of, to_numpy
from fedimb.registry import register
from fedimb.selection.mutual_information import largest, mutual_information
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Replace, Rounds, Step
from fedimb.strategies.base import KeepsWeights, Program, masked_total

_FLAT = 2.0**-20  # sums are rounded to it


@register(
    "strategy",
    "feature_select",
    reveals_counts=True,
    reads_labels=True,
    when={("secure", True): {"reveals_counts": False}, ("rule", "rfe"): {"reveals_counts": False}},
    read_with={
        "secure": ("rule", ("mi",)),
        "min_count": ("rule", ("mi",)),
        "warmup": ("rule", ("rfe",)),
        "steps": ("rule", ("rfe",)),
    },
)
class FeatureSelect(KeepsWeights):
    """Feature selection before training.

    Args:
        inner: the aggregator or method that trains on the columns that stay.
        settings: a `FeatureSelectSettings`; or give its fields by name: ``FeatureSelect(FedAvg(), keep=0.2)``.
    """

    def __init__(self, inner: Strategy, settings: FeatureSelectSettings | None = None, **fields: object) -> None:
        super().__init__(inner)
        self.settings = FeatureSelectSettings.of(settings, fields)
        self._server: Server | None = None

    def check(self, rounds: int) -> None:
        """Refuse steps that leave no round for training."""
        if self._before() >= rounds:
            raise ConfigError(
                f"strategy.feature_select: {self.settings.steps} steps after {self.settings.warmup} rounds each use up "
                f"all rounds={rounds}: lower them, or run more rounds"
            )

    def inner_rounds(self, rounds: int) -> int:
        """The rounds after the last step."""
        return rounds - self._before()

    def shortest(self) -> int:
        """The rounds before the last step, and the shortest inner run."""
        return self._before() + super().shortest()

    def _before(self) -> int:
        return self.settings.warmup * self.settings.steps if self.settings.rule == "rfe" else 0

    def check_server(self, server: Server) -> None:
        """Refuse a model whose inputs cannot be dropped by its weights, noise on them, and masks for one client."""
        first_layer(server.model())
        if server.clips():
            raise ConfigError(
                "strategy=feature_select: privacy.clip bounds what an update shows, and counts of the columns (mi) and "
                "weights set to 0 (rfe) are beside it: set privacy.clip=null"
            )
        if self.settings.rule == "mi" and self.settings.secure and len(server.holders()) < 2:
            raise ConfigError(
                "strategy.feature_select.secure=true hides nothing with one client: its sum is that client's; set "
                "strategy.feature_select.secure=false"
            )

    def program(self, run: RunContext) -> Program:
        """Select before the inner program (mi), or train and drop in steps before it (rfe)."""
        server = run.server
        if server is None:
            raise ConfigError(
                "strategy=feature_select needs fedimb's own server: run it with fedimb, not in a plain ServerApp"
            )
        self._server = server
        columns = math.prod(server.input_shape())
        keep = math.ceil(self.settings.keep * columns)
        before = self._before()
        if self.settings.rule == "mi":
            scale = yield from self._scale(run, server)
            values = mutual_information((yield from self._counts(run, server, scale)))
            yield from self._dropped(run, largest(values, keep), values)
            run.initial = self._zeroed(server, run.initial or parameters_of(server.model()))
        else:
            for step in range(1, self.settings.steps + 1):
                yield Rounds(self.settings.warmup)
                name = f"{first_layer(server.model())}.weight"
                size = (self.aggregated(server)[name].astype(np.float64) ** 2).sum(axis=0)
                stay = round(columns - (columns - keep) * step / self.settings.steps)
                yield from self._dropped(run, largest(size, stay), size)
                yield Replace(self._zeroed(server, self.aggregated(server)))
        run.rounds -= before
        yield from self.kept_program(run)
        run.rounds += before  # for the next labelling cycle, if there is one

    def _total(
        self, run: RunContext, server: Server, queries: tuple[str, str], key: str, content: RecordDict
    ) -> Generator[Step, Any, NDArray[np.int64]]:
        """The sum over clients of the one array in their records, masked or as it is."""
        if self.settings.secure:
            return (yield from masked_total(run, server, Query(queries[1], content), key))
        replies = yield Query(queries[0], content)
        return np.sum([next(iter(arrays_of(reply.content, key).values())) for reply in replies], axis=0, dtype=np.int64)

    def _scale(self, run: RunContext, server: Server) -> Generator[Step, Any, Arrays]:
        """Mean and deviation of each column over all rows; 1 for a column that does not vary."""
        sums = from_fixed((yield from self._total(run, server, (SUMS_OF, MASKED_SUMS_OF), SUMS, RecordDict())))
        mean = sums[1] / sums[0]
        variance = np.maximum(sums[2] / sums[0] - mean**2, 0)
        return {"mean": mean, "deviation": np.where(variance > _FLAT, np.sqrt(variance), 1.0)}

    def _counts(self, run: RunContext, server: Server, scale: Arrays) -> Generator[Step, Any, NDArray[np.int64]]:
        """Counts [C, F, bins] over all clients, without classes of too few rows."""
        content = RecordDict({SCALE: array_record(scale)})
        total = yield from self._total(run, server, (COUNTS_OF, MASKED_COUNTS_OF), COUNTS, content)
        few = total.sum(axis=2).max(axis=1) < self.settings.min_count
        if few.sum() > len(few) - 2:
            raise RunFailed(
                f"strategy=feature_select: fewer than two classes have min_count={self.settings.min_count} rows; lower "
                "it"
            )
        total[few] = 0
        return total

    def _dropped(self, run: RunContext, kept: NDArray[np.bool_], values: NDArray[np.float64]) -> Program:
        """Tell the clients which columns stay, and keep it, with what it was decided by."""
        self.memory["kept"] = kept.astype(np.int64)
        about = {"rule": self.settings.rule, "kept": np.flatnonzero(kept).tolist(), "values": values.round(9).tolist()}
        run.artifact("feature_select.json", (json.dumps(about, indent=1) + "\n").encode())
        yield Query(KEEP, RecordDict({KEPT: array_record({"kept": kept.astype(np.int64)})}))

    def replaced(self, weights: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Weights that the inner method made, with those of dropped columns at 0."""
        assert self._server is not None, "replaced before the program"
        return self._zeroed(self._server, dict(weights))

    def _zeroed(self, server: Server, weights: Arrays) -> Arrays:
        """Weights with those of dropped columns at 0."""
        name = f"{first_layer(server.model())}.weight"
        return {**weights, name: without_columns(weights[name], np.asarray(self.memory["kept"]))}

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Flower's hook: dropped columns stay without weight, whatever the aggregator or a client adds to them."""
        merged, metrics = super().aggregate_train(server_round, replies)
        if merged is None or "kept" not in self.memory:
            return merged, metrics
        assert self._server is not None, "aggregate_train before the program"
        return array_record(self._zeroed(self._server, to_numpy(merged))), metrics


def first_layer(model: Classifier) -> str:
    """Name of the linear layer that reads the inputs.

    Raises:
        ConfigError: the model has none, or its outputs depend on the length of a row.
    """
    if isinstance(model, MLP | Logistic):
        name = model.dense()[0]
        if type(model.get_submodule(name)) is nn.Linear:
            return name
    raise ConfigError(
        "strategy=feature_select drops columns by weights of 0 in a linear layer that reads the inputs; use "
        "model=logistic or model=mlp, with head=linear"
    )


def without_columns(weight: NDArray[np.float32], kept: NDArray[np.int64]) -> NDArray[np.float32]:
    """A weight [out, F] with zeros in the columns that are not kept [F]."""
    return np.where(kept.astype(bool), weight, 0).astype(weight.dtype)
