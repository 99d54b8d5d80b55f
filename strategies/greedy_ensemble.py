"""An ensemble of the sites' own models, weighted by greedy selection on the server's labelled rows.

Every site trains alone (``clients.private=['*']``) and sends its model once, at the end. The server adds models with
replacement as long as that makes the ensemble better on its rows (``data.public``): `fedimb.selection.greedy_ensemble`.
The ensemble is one model: it scores the run, is stored, and predicts. Sites may train any networks.

With one exchange and an ensemble it is one-shot federated learning (Guha, Talwalkar & Smith, 2019, arXiv 1902.11175).
A site that does not annotate a class says nothing of it: its probabilities are over its own classes.
"""

import json
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from fedimb.contracts.greedy_ensemble import MODEL, MODELS, GreedyEnsembleSettings
from fedimb.errors import ConfigError, RunFailed
from fedimb.models.base import buffers_of, load_into
from fedimb.models.ensemble import own_probabilities
from fedimb.records import Arrays, array_record, arrays_of
from fedimb.registry import register
from fedimb.selection.greedy_ensemble import select_greedily
from fedimb.serverapp.aggregator import Aggregator
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.ensemble_evaluator import WEIGHTS, member_key
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Replace, Reply, ServerWork
from fedimb.strategies.base import Method, Program
from fedimb.strategies.public_scores import Teachers

log = logging.getLogger("fedimb")

ENSEMBLE = "ensemble"
"""Name of the model that scores the run, and of the artifact that says of whom it is."""


@register(
    "strategy",
    "greedy_ensemble",
    own_models=("kinds", "private"),
    needs_private=("*",),
    innermost=True,
)
class GreedyEnsemble(Method):
    """An ensemble of the sites' own models, weighted by greedy selection on the server's labelled rows.

    Args:
        inner: the aggregator, which has nothing to average.
        settings: a `GreedyEnsembleSettings`; or give its fields by name: ``GreedyEnsemble(FedAvg(), picks=20)``.
    """

    def __init__(self, inner: Strategy, settings: GreedyEnsembleSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = GreedyEnsembleSettings.of(settings, fields)
        self._teachers = Teachers()

    def check_server(self, server: Server) -> None:
        """Refuse a server without rows, BatchNorm, clipped updates, and what asks clients about the final model."""
        server.public()
        for kind, model in server.networks().items():
            if buffers := buffers_of(model):
                raise ConfigError(
                    f"strategy.greedy_ensemble sends what is trained of a model, and '{kind}' has buffers besides "
                    f"({next(iter(buffers))}): use a model without BatchNorm (norm=group)"
                )
        if server.clips():
            raise ConfigError(
                "strategy.greedy_ensemble: models leave without privacy.clip and its noise; set it to null"
            )
        if server.asks_clients():
            raise ConfigError(
                "strategy.greedy_ensemble: clients have no model like the ensemble to score it with; use test rows at "
                "the server (data.test), and evaluation.temperature=false"
            )
        if corrections := [name for name in server.calibrations() if name != "none"]:
            raise ConfigError(
                f"strategy.greedy_ensemble: calibration '{corrections[0]}' corrects a linear head, and an ensemble has "
                "none; use calibration=none"
            )

    def program(self, run: RunContext) -> Program:
        """The rounds, in which nothing is shared, then the ensemble."""
        if (server := run.server) is None:
            raise ConfigError(
                "strategy=greedy_ensemble needs rows at the server: run it with fedimb, not in a plain ServerApp"
            )
        self._teachers = Teachers(server.annotated())
        yield from self.inner_program(run)
        replies = yield Query(MODELS)
        made = yield ServerWork("greedy_ensemble_select", lambda: self._selected(server, replies))
        weights = arrays_of(made, "weights")
        run.artifact(f"{ENSEMBLE}.json", str(made.config_records["about"]["json"]).encode())
        run.models[ENSEMBLE] = lambda draw: Aggregator(
            FedAvg(), True, {name: np.zeros_like(value) for name, value in weights.items()}, {}
        )
        run.final = ENSEMBLE
        yield Replace(weights, model=ENSEMBLE)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages, with what each client annotates if that differs."""
        return self._teachers.told(super().configure_train(server_round, arrays, config, grid))

    def _selected(self, server: Server, replies: list[Reply]) -> RecordDict:
        """The chosen models and their weights as one model's parameters, and who was chosen.

        Raises:
            RunFailed: no client sent a trained model.
        """
        found = {reply.client: arrays_of(reply.content, MODEL) for reply in replies if MODEL in reply.content}
        if not found:
            raise RunFailed(
                "strategy.greedy_ensemble: no client that answered has trained its model; run more rounds, or take "
                "more clients a round"
            )
        if without := sorted(set(server.holders()) - found.keys()):
            log.warning(
                "strategy.greedy_ensemble: the ensemble is without client %s: never trained, or no answer",
                ", ".join(map(str, without)),
            )
        own, rows = self.settings, server.public()
        said = torch.stack([self._probabilities(server, client, arrays, rows.x) for client, arrays in found.items()])
        picked = select_greedily(said, rows.y, own.picks, own.score, own.penalty)
        times = dict(zip(found, picked.counts.tolist(), strict=True))
        shares = {client: count / sum(times.values()) for client, count in times.items() if count}
        weights = {member_key(client, name): value for client in shares for name, value in found[client].items()} | {
            WEIGHTS: np.array(list(shares.values()), np.float32)
        }
        about = {
            "weights": {f"client-{client}": share for client, share in shares.items()},
            "picks": sum(times.values()),
            "score": own.score,
            "rows": len(rows.y),
            "reached": picked.score,
            "best_alone": picked.best_alone,
        }
        text = ConfigRecord({"json": json.dumps(about, indent=1) + "\n"})
        return RecordDict({"weights": array_record(weights), "about": text})

    def _probabilities(self, server: Server, client: int, arrays: Arrays, x: torch.Tensor) -> torch.Tensor:
        """[n, C] of one site's model, over the classes that it annotates.

        Raises:
            RunFailed: the weights are not those of its network.
        """
        model = server.networks()[server.kind_of(client)]
        try:
            load_into(model, {name: torch.from_numpy(value) for name, value in arrays.items()})
        except (KeyError, RuntimeError) as error:
            raise RunFailed(f"strategy.greedy_ensemble: client {client} sent another model: {error}") from error
        annotated, logits = server.annotated(), server.outputs(model, x)[1]
        unknown = np.zeros(logits.shape[1], bool) if annotated is None else ~annotated[client]
        return own_probabilities(logits, torch.from_numpy(unknown))
