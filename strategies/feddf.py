"""FedDF: FedAvg in each kind of network, then every mean model learns from all clients together.

Lin et al., "Ensemble Distillation for Robust Model Fusion in Federated Learning", NeurIPS 2020, algorithms 1 and 3: the
mean of the clients' weights is the student, the mean of the logits of all clients, of whatever network, the teacher,
on rows whose labels are not used. With one network it is FedAvg with this step added.

Different from the paper: a client says itself what its model thinks of the server's rows (``data.public``), which it
gets once, where the paper's server asks each received model. These are the same numbers, and no single update needs to
reach the server. The number of passes is fixed (``epochs``), not found on validation rows. Where clients annotate
different classes, each speaks only of its own; a class of which nobody in a round speaks is left as the mean has it.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedimb.contracts.feddf import SHOW, FedDFSettings
from fedimb.contracts.public_scores import ROWS
from fedimb.errors import ConfigError
from fedimb.models.base import buffers_of, load_into, parameters_of
from fedimb.records import array_record, to_numpy
from fedimb.registry import register
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Reply
from fedimb.strategies.base import Method, Program
from fedimb.strategies.public_scores import Teachers
from fedimb.training.distillation import SoftTargets
from fedimb.training.fusion import targets_of


@register("strategy", "feddf", own_models=("kinds",), innermost=True)
class FedDF(Method):
    """FedDF: FedAvg in each kind of network, then every mean model learns from all clients together.

    Args:
        inner: the aggregator, of each kind of network.
        settings: a `FedDFSettings`; or give its fields by name: ``FedDF(FedAvg(), epochs=10)``.
    """

    transient: ClassVar[tuple[str, ...]] = ("_loss",)  # from before_aggregation to aggregate_train, within one round

    def __init__(self, inner: Strategy, settings: FedDFSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = FedDFSettings.of(settings, fields)
        self._server: Server | None = None
        self._teachers = Teachers()
        self._loss: SoftTargets | None = None

    def check_server(self, server: Server) -> None:
        """Refuse a server without rows, BatchNorm, networks that cannot be told apart, and clipped updates."""
        server.public()
        networks = server.networks()
        for kind, model in networks.items():
            if buffers := buffers_of(model):
                raise ConfigError(
                    f"strategy.feddf: '{kind}' is taught at the server, which lacks the model's buffers "
                    f"({next(iter(buffers))}): use a model without BatchNorm (norm=group)"
                )
        shapes = {kind: _shapes(parameters_of(model)) for kind, model in networks.items()}
        if twins := [pair for pair in combinations(shapes, 2) if shapes[pair[0]] == shapes[pair[1]]]:
            raise ConfigError(
                f"strategy.feddf knows the networks of clients.models by their weights, and those of '{twins[0][0]}' "
                f"and '{twins[0][1]}' have the same names and shapes; use networks of another width or depth"
            )
        if server.averages_alike():
            raise ConfigError(
                "strategy.feddf teaches whole networks one after another, and clients.models.average=alike gives them "
                "layers in common; use clients.models.average=kind"
            )
        if server.clips():
            raise ConfigError("strategy.feddf: scores leave without privacy.clip and its noise; set it to null")

    def program(self, run: RunContext) -> Program:
        """The server's rows to all clients, then the rounds."""
        if (server := run.server) is None:
            raise ConfigError("strategy=feddf needs a server that trains: run it with fedimb, not in a plain ServerApp")
        self._server, self._teachers = server, Teachers(server.annotated())
        yield Query(SHOW, RecordDict({ROWS: array_record({"x": server.public().x.numpy()})}))
        yield from self.inner_program(run)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages, with what each client annotates if that differs."""
        return self._teachers.told(super().configure_train(server_round, arrays, config, grid))

    def before_aggregation(self, server_round: int, replies: Sequence[Reply]) -> None:
        """What the round's clients teach together."""
        own, self._loss = self.settings, None
        if (found := self._teachers.said(replies)) is None:
            return
        logits, annotated = found
        targets = targets_of(logits, annotated, None, own.agreement, own.sharpening, own.entropy, own.min_score)
        self._loss = SoftTargets(targets, annotated.any(dim=0))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The inner strategy's weights of one network, taught what all clients say; as they are without teachers."""
        merged, metrics = super().aggregate_train(server_round, replies)
        if merged is None or self._server is None or self._loss is None or not self.settings.epochs:
            return merged, metrics
        if not (self._loss.weights > 0).any():
            return merged, metrics
        weights, own = to_numpy(merged), self.settings
        networks = list(self._server.networks().values())
        shapes = _shapes(weights)
        position = next(i for i, one in enumerate(networks) if _shapes(parameters_of(one)) == shapes)
        model = networks[position]
        load_into(model, {name: torch.from_numpy(value) for name, value in weights.items()})
        purpose = server_round * len(networks) + position
        taught = self._server.distil(model, self._loss, own.epochs, own.lr, own.batch_size, purpose)
        return array_record({name: taught[name] for name in weights}), metrics


def _shapes(weights: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in weights.items()}
