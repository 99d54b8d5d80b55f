"""FedMD: clients keep their models, and learn from what all of them say together of the server's rows.

Li & Wang, "FedMD: Heterogenous Federated Learning via Model Distillation", 2019 (arXiv 1910.03581). No weight leaves a
client (``clients.private=['*']``), which may train any network. After each round clients send their logits of the
server's rows (``data.public``); in the next they learn the mean of them (*digest*) before they train on own rows
(*revisit*). ``aggregation=entropy_reduction`` is DS-FL's (Itahara et al., IEEE TMC 2023).

Different from the paper: a round has as many local steps as any method's, of which ``digest`` is a share; all public
rows are used in every round, not a fresh draw; the consensus is of the clients that took part in the last round, not of
all; Adam is used only if ``local.optimizer`` says so. Where clients annotate different classes, each speaks only of its
own; a class of which no client of the last round speaks teaches nothing in this one.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedimb.contracts.fedmd import CONSENSUS, SHOW, FedMDSettings
from fedimb.contracts.public_scores import ROWS
from fedimb.errors import ConfigError
from fedimb.records import array_record
from fedimb.registry import register
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Reply
from fedimb.strategies.base import Method, Program, sent_along
from fedimb.strategies.public_scores import Teachers
from fedimb.training.distillation import consensus_of
from fedimb.training.fusion import targets_from


@register(
    "strategy",
    "fedmd",
    own_models=("kinds", "private"),
    needs_private=("*",),
    innermost=True,
    read_with={"temperature": ("aggregation", ("entropy_reduction",))},
)
class FedMD(Method):
    """FedMD: clients keep their models, and learn from what all of them say together of the server's rows.

    Args:
        inner: the aggregator, which has nothing to average.
        settings: a `FedMDSettings`; or give its fields by name: ``FedMD(FedAvg(), match="probabilities")``.

    Raises:
        ConfigError: ``match=logits`` with ``aggregation=entropy_reduction``.
    """

    def __init__(self, inner: Strategy, settings: FedMDSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = own = FedMDSettings.of(settings, fields)
        if own.match == "logits" and own.aggregation == "entropy_reduction":
            raise ConfigError(
                "strategy.fedmd.match=logits compares the size of logits, and aggregation=entropy_reduction makes "
                "probabilities; set strategy.fedmd.match=probabilities"
            )
        self._teachers = Teachers()

    def check_server(self, server: Server) -> None:
        """Refuse a server without rows, and clipped updates."""
        server.public()
        if server.clips():
            raise ConfigError("strategy.fedmd: scores leave without privacy.clip and its noise; set it to null")

    def program(self, run: RunContext) -> Program:
        """The server's rows to all clients, then the rounds."""
        if (server := run.server) is None:
            raise ConfigError("strategy=fedmd needs rows at the server: run it with fedimb, not in a plain ServerApp")
        self._teachers = Teachers(server.annotated())
        rows = server.public()
        content = {"x": rows.x.numpy()} | ({"y": rows.y.numpy()} if self.settings.pretrain else {})
        yield Query(SHOW, RecordDict({ROWS: array_record(content)}))
        yield from self.inner_program(run)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages, with the consensus once there is one."""
        messages = self._teachers.told(super().configure_train(server_round, arrays, config, grid))
        if "logits" not in self.memory:
            return messages
        sent = {name: np.asarray(self.memory[name]) for name in ("logits", "weights", "known")}
        return sent_along(messages, CONSENSUS, array_record(sent))

    def before_aggregation(self, server_round: int, replies: Sequence[Reply]) -> None:
        """The consensus of those who said something; if nobody did, it stays as it was."""
        if (found := self._teachers.said(replies)) is None:
            return
        own = self.settings
        logits, annotated = found
        known = annotated.any(dim=0)
        consensus = consensus_of(logits, annotated, own.aggregation, own.temperature)
        weights = targets_from(consensus, known, 1.0, own.entropy, 0.0).weights
        self.memory["logits"], self.memory["weights"] = consensus.numpy(), weights.numpy()
        self.memory["known"] = known.numpy().astype(np.uint8)
