"""FedIIC: logits adjusted by how rare and how hard a class is, and contrast inside a client and to shared prototypes.

Wu et al., MICCAI 2023; the equations are in `fedimb.training.contrast`. Before every round all clients report each
class's rows and the sum of their losses; l_c = sum of the losses / (1e-5 + rows). The prototypes of a round start from
the projections of the head's rows and are spread apart by gradient steps; they follow from the weights alone, so
nothing is kept. A class that nobody reports has the mean loss of those reported.

The two views of a row are two draws of ``local.augmentation``. The model needs ``model.head=projected``.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch.nn.functional import linear, normalize

from fedimb.contracts.fediic import CLASS_LOSSES, CLASS_LOSSES_OF, GUIDE, FedIICSettings
from fedimb.errors import RunFailed
from fedimb.records import array_record, arrays_of, to_numpy
from fedimb.registry import register
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Reply, Rounds
from fedimb.strategies.base import Method, Program, refuse_inner_method, sent_along
from fedimb.training.contrast import spread_apart

_LEAST = 1e-5
_PROJECTOR = "head.projector.{layer}.{part}"


def class_losses(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean losses [C] float64 of the clients' sums and counts added up [C]; see the module for a class without rows."""
    held = counts > 0
    losses = np.where(held, sums / (_LEAST + counts), 0.0)
    losses[~held] = losses[held].mean() if held.any() else 1.0
    return losses


@register(
    "strategy",
    "fediic",
    adjusts_logits=True,
    needs_loss=("ce",),
    needs_head="projected",
    two_views="both",
    reveals_counts=True,
    innermost=True,
)
class FedIIC(Method):
    """FedIIC: logits adjusted by how rare and how hard a class is, and contrast inside a client and to prototypes.

    Args:
        inner: the aggregator of the rounds.
        settings: a `FedIICSettings`; or give its fields by name: ``FedIIC(FedAvg(), intra=1.0)``.

    Raises:
        ConfigError: another method inside this one.
    """

    def __init__(self, inner: Strategy, settings: FedIICSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = FedIICSettings.of(settings, fields)
        self._server: Server | None = None  # none in a plain ServerApp, where nothing counts steps
        refuse_inner_method("fediic", inner)

    def program(self, run: RunContext) -> Program:
        """The classes' losses before every round."""
        self._server = run.server
        for _ in range(run.rounds):
            replies = yield Query(CLASS_LOSSES_OF, model="global")
            self.memory["losses"] = _added(replies, run.n_classes)
            yield Rounds(1)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages with prototypes and class losses (all 1 before they are known).

        Raises:
            RunFailed: the model has no head with a projector.
        """
        prototypes = self._prototypes(to_numpy(arrays))
        losses = np.asarray(self.memory.get("losses", np.ones(len(prototypes))), np.float32)
        messages = super().configure_train(server_round, arrays, config, grid)
        return sent_along(messages, GUIDE, array_record({"prototypes": prototypes, "losses": losses}))

    def _prototypes(self, weights: dict[str, np.ndarray]) -> np.ndarray:
        """The projections of the head's rows, spread apart, of length 1: [C, p] float32."""
        layers = [[_PROJECTOR.format(layer=layer, part=part) for part in ("weight", "bias")] for layer in (0, 2)]
        if missing := [name for pair in layers for name in pair if name not in weights]:
            raise RunFailed(
                f"strategy 'fediic' projects the rows of the head, and this model has no {missing[0]}: use "
                "model.head=projected"
            )
        rows = torch.from_numpy(weights["head.weight"].copy())
        first, second = ([torch.from_numpy(weights[name].copy()) for name in pair] for pair in layers)
        projected = linear(linear(rows, *first).relu(), *second)
        if self._server is not None:
            self._server.count_steps(self.settings.steps)
        return normalize(spread_apart(projected, self.settings.steps, self.settings.lr), dim=1).numpy()


def _added(replies: Sequence[Reply], classes: int) -> np.ndarray:
    if not replies:
        return class_losses(np.zeros(classes), np.zeros(classes, np.int64))
    found = [arrays_of(reply.content, CLASS_LOSSES) for reply in replies]
    sums = np.stack([one["sums"] for one in found]).sum(axis=0, dtype=np.float64)
    return class_losses(sums, np.stack([one["counts"] for one in found]).sum(axis=0, dtype=np.int64))
