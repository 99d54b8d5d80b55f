"""Two-stage training: first the whole model, then the head alone, class-balanced, at the clients.

Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020 (classifier re-training),
in a federation: both stages are rounds, with the same local steps, and the aggregator averages what is trained. The
paper draws the head anew for the second stage; here it goes on from the first.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedimb.contracts.two_stage import STAGE, TwoStageSettings
from fedimb.errors import ConfigError
from fedimb.models.base import buffers_of
from fedimb.records import array_record
from fedimb.registry import register
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Rounds
from fedimb.strategies.base import Method, Program, refuse_inner_method, sent_along


@register(
    "strategy",
    "two_stage",
    adjusts_logits=True,
    needs_loss=("ce",),
    own_models=("kinds", "private"),
    innermost=True,
    freezes="trains the head alone in its second stage",
)
class TwoStage(Method):
    """First the whole model, then the head alone, class-balanced.

    Args:
        inner: the aggregator of both stages.
        settings: a `TwoStageSettings`; or give its fields by name: ``TwoStage(FedAvg(), first=0.5)``.

    Raises:
        ConfigError: another method inside this one.
    """

    def __init__(self, inner: Strategy, settings: TwoStageSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = TwoStageSettings.of(settings, fields)
        refuse_inner_method("two_stage", inner)

    def check(self, rounds: int) -> None:
        """Refuse a single round, which cannot have two stages."""
        if rounds < 2:
            raise ConfigError(f"strategy.two_stage needs a round for each stage, and has rounds={rounds}: run more")

    def check_server(self, server: Server) -> None:
        """Refuse BatchNorm, whose statistics would move on under a head that is trained alone."""
        for kind, model in server.networks().items():
            if buffers := buffers_of(model):
                raise ConfigError(
                    f"strategy.two_stage: '{kind}' has buffers ({next(iter(buffers))}) that change while the head is "
                    "trained alone; use a model without BatchNorm (norm=group)"
                )

    def program(self, run: RunContext) -> Program:
        """The rounds of the first stage, then those of the second."""
        first = min(max(1, round(self.settings.first * run.rounds)), run.rounds - 1)
        self.memory["second"] = 0.0
        yield Rounds(first)
        self.memory["second"] = 1.0
        run.next_part()
        yield Rounds(run.rounds - first)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages; in the second stage they say so."""
        messages = super().configure_train(server_round, arrays, config, grid)
        if not self.memory.get("second"):
            return messages
        return sent_along(messages, STAGE, array_record({"second": np.ones(1, np.uint8)}))
