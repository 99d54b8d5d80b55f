"""HeroCrystal, for classification: a shared backbone, heads that stay at their sites, and one head of all classes.

HeroCrystal (arXiv 2605.02169) fuses object detectors of several cameras; its detection numbers are not claimed here.
This is its structure with classifiers:

1. The server sends labelled rows of its own (``data.public``) to every client, which trains on them beside its own.
   The paper generates them from one image of the target.
2. Clients train the whole model. Its backbone is averaged, every client alike, and its head stays
   (``clients.private=[head]``). A contrastive term holds the backbone between the received model and the client's own
   previous one (`fedimb.training.objectives.moon_dynamic`). Classes that a site does not annotate are left out of its
   softmax.
3. At the end the heads are sent once. On the averaged backbone, which is frozen, they teach one head of all classes
   on the server's rows, whose labels are not used: `fedimb.training.fusion`. The figure of the paper shows this; the
   authors' code has every teacher use its own backbone.

Differences from the authors' code: both references of the contrastive term are loaded, or it would have no gradient; a
client's head is not replaced by the first client's after a round; no client needs to know all classes.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from fedimb.contracts.herocrystal import ANNOTATED, HEAD, HEADS, ROWS, SAMPLES, HeroCrystalSettings
from fedimb.errors import ConfigError, RunFailed
from fedimb.models.base import buffers_of, parameters_of
from fedimb.records import Arrays, array_record, arrays_of
from fedimb.registry import register
from fedimb.seeds import Stream, torch_generator
from fedimb.serverapp.aggregator import Aggregator
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Replace, Reply, ServerWork, gather_counts
from fedimb.strategies.base import (
    KeepsWeights,
    Program,
    refuse_inner_method,
    refuse_without_linear_head,
    sent_along,
)
from fedimb.training.fusion import distil_head, fused_head, targets_of

log = logging.getLogger("fedimb")

FUSED = "fused"
"""Name of the model of all classes, which scores the run."""
_RARE = 0.1


@register(
    "strategy",
    "herocrystal",
    when={("samples", "rare"): {"reveals_counts": True}},
    own_models=("private",),
    needs_private=("head",),
    fuses_models=True,
    innermost=True,
    unread_with={"mu": ("contrast", ("none",)), "temperature": ("contrast", ("none",))},
)
class HeroCrystal(KeepsWeights):
    """HeroCrystal, for classification: a shared backbone, private heads, and one head of all classes at the end.

    Args:
        inner: the aggregator of the rounds.
        settings: a `HeroCrystalSettings`; or give its fields by name: ``HeroCrystal(FedAvg(), contrast="moon")``.

    Raises:
        ConfigError: another method inside this one.
    """

    def __init__(self, inner: Strategy, settings: HeroCrystalSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = HeroCrystalSettings.of(settings, fields)
        refuse_inner_method("herocrystal", inner)
        self._annotated: np.ndarray | None = None

    def check_server(self, server: Server) -> None:
        """Refuse a server without rows to teach with, and a model whose head is not linear or that has BatchNorm."""
        server.public()
        model = server.model()
        if all(name.startswith("head.") for name in parameters_of(model)):
            raise ConfigError("strategy.herocrystal: the model has nothing to average but its head; use a deeper one")
        refuse_without_linear_head("herocrystal", model)
        if buffers := buffers_of(model):
            raise ConfigError(
                f"strategy.herocrystal: the fused head is taught at the server, which lacks the model's buffers "
                f"({next(iter(buffers))}): use a model without BatchNorm (norm=group)"
            )
        if server.clips():
            raise ConfigError("strategy.herocrystal: heads leave without privacy.clip and its noise; set them to null")
        if (pivot := self.settings.pivot) is not None and pivot not in server.holders():
            raise ConfigError(f"strategy.herocrystal.pivot={pivot}: no client of that id holds rows; give one, or null")

    def program(self, run: RunContext) -> Program:
        """Samples to all clients, the rounds, then the head of all classes."""
        if (server := run.server) is None:
            raise ConfigError("strategy=herocrystal needs a server that trains: run it with fedimb")
        self._annotated = server.annotated()
        if self.settings.samples != "none":
            counts = None
            if self.settings.samples == "rare":
                counts = (yield from gather_counts("train")).sum(axis=0)
            yield Query(SAMPLES, RecordDict({ROWS: array_record(self._samples(server, counts))}))
        yield from self.inner_program(run)
        replies = yield Query(HEADS)
        made = yield ServerWork("herocrystal_fuse", lambda: self._fused(run, server, replies))
        weights = arrays_of(made, "weights")
        run.models[FUSED] = lambda draw: Aggregator(FedAvg(), True, parameters_of(server.model()), {})
        run.final = FUSED
        yield Replace(weights, model=FUSED)

    def _samples(self, server: Server, counts: np.ndarray | None) -> Arrays:
        """The server's rows to send: all, or those of rare classes.

        Raises:
            ConfigError: no class is rare.
        """
        rows = server.public()
        x, y = rows.x.numpy(), rows.y.numpy()
        if counts is None:
            return {"x": x, "y": y}
        kept = (counts < _RARE * counts.max())[y]
        if not kept.any():
            raise ConfigError(
                "strategy.herocrystal.samples=rare: no class has less than a tenth of the largest one's rows; use all "
                "or none"
            )
        return {"x": x[kept], "y": y[kept]}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages, with what each client annotates if that differs."""
        messages = super().configure_train(server_round, arrays, config, grid)
        if self._annotated is None:
            return messages
        return sent_along(messages, ANNOTATED, array_record({"annotated": self._annotated.astype(np.uint8)}))

    def _fused(self, run: RunContext, server: Server, replies: list[Reply]) -> RecordDict:
        """The averaged backbone with the head that all sites' heads have taught.

        Raises:
            RunFailed: no client sent its head, or none has trained one.
        """
        if not replies:
            raise RunFailed("strategy.herocrystal: no client sent its head; resume to ask again")
        replies = _trained(replies, server.holders())
        own, weights = self.settings, self.aggregated(server)
        clients = [reply.client for reply in replies]
        heads = [arrays_of(reply.content, HEAD) for reply in replies]
        weight, bias = (torch.from_numpy(np.stack([head[part] for head in heads])) for part in ("weight", "bias"))
        annotated = torch.ones(len(clients), run.n_classes, dtype=torch.bool)
        if self._annotated is not None:
            annotated = torch.from_numpy(self._annotated[clients])
        _warn_of_unknown(run.class_names, annotated)
        pivot = _pivot_among(clients, own.pivot)
        features = server.outputs(server.model(weights), server.public().x)[0].cpu()
        logits = torch.einsum("nd,kcd->knc", features, weight) + bias[:, None]
        targets = targets_of(logits, annotated, pivot, own.agreement, own.sharpening, own.entropy, own.min_score)
        if own.epochs and not (targets.weights > 0).any():
            log.warning(
                "strategy.herocrystal: none of the server's rows teaches anything, so the fused head is not taught but "
                "put together from the clients': they agree on no row, or are sure of none; set agreement=false, or a "
                "smaller min_score"
            )
        start = fused_head(weight, bias, annotated, pivot)
        generator = torch_generator(run.seed, Stream.METHOD, 4)
        head = distil_head(*start, features, targets, generator, own.epochs, own.lr, own.batch_size)
        server.count_steps(own.epochs * math.ceil(int((targets.weights > 0).sum()) / own.batch_size))
        new = {"head.weight": head[0].numpy(), "head.bias": head[1].numpy()}
        return RecordDict({"weights": array_record(weights | new)})


def _trained(replies: list[Reply], holders: Sequence[int]) -> list[Reply]:
    """The replies of clients that have trained; of others there is only the initial head, and they send none.

    Args:
        holders: clients with rows, all of which were asked.

    Raises:
        RunFailed: nobody has.
    """
    found = [reply for reply in replies if HEAD in reply.content]
    if not found:
        raise RunFailed(
            "strategy.herocrystal: no client that answered has trained its head; run more rounds, or take more clients "
            "a round"
        )
    if without := sorted(set(holders) - {reply.client for reply in found}):
        log.warning(
            "strategy.herocrystal: the fused head is without client %s: never trained, or no answer",
            ", ".join(map(str, without)),
        )
    return found


def _warn_of_unknown(class_names: Sequence[str], annotated: torch.Tensor) -> None:
    """Say which classes none of the fused heads annotates: they are never predicted."""
    if lost := [name for name, known in zip(class_names, annotated.any(dim=0).tolist(), strict=True) if not known]:
        log.warning("strategy.herocrystal: no trained head annotates %s, never predicted", ", ".join(lost))


def _pivot_among(clients: Sequence[int], pivot: int | None) -> int | None:
    """Position of the pivot among the clients whose heads are fused; of the first one if it is not among them."""
    if pivot is None or pivot in clients:
        return None if pivot is None else clients.index(pivot)
    log.warning(
        "strategy.herocrystal.pivot=%d has not trained, or did not answer; client %d takes its place", pivot, clients[0]
    )
    return 0
