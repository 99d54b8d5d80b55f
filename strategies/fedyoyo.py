"""FedYoYo: each client teaches itself from a weak view of a row to a strong one, under logits adjusted by class shares.

"FedYoYo", ICCV 2025: the loss `dla`, the local objective `fedimb.training.objectives.self_distil`, and class shares of
the federation from effective numbers (`fedimb.training.effective_numbers`), for which all clients are asked before
every round. These numbers have no bound for rare classes; ``prior=run`` takes the run's class counts instead.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedimb.contracts.fedyoyo import EFFECTIVE, EFFECTIVE_OF, SHARES, FedYoYoSettings
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.steps import Query, Rounds
from fedimb.strategies.base import Method, Program, refuse_inner_method, sent_along
from fedimb.training.effective_numbers import shares_of


@register(
    "strategy",
    "fedyoyo",
    adjusts_logits=True,
    needs_loss=("dla",),
    two_views="second",
    innermost=True,
    reveals_counts=True,
    when={("prior", "run"): {"reveals_counts": False}},
    read_with={"min_count": ("prior", ("effective",))},
)
class FedYoYo(Method):
    """FedYoYo: each client teaches itself from a weak view of a row to a strong one, under adjusted logits.

    Args:
        inner: the aggregator of the rounds.
        settings: a `FedYoYoSettings`; or give its fields by name: ``FedYoYo(FedAvg(), weight=1.5)``.

    Raises:
        ConfigError: another method inside this one.
    """

    def __init__(self, inner: Strategy, settings: FedYoYoSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = FedYoYoSettings.of(settings, fields)
        refuse_inner_method("fedyoyo", inner)

    def program(self, run: RunContext) -> Program:
        """Effective numbers before every round, or plain rounds with the run's prior."""
        if self.settings.prior == "run":
            yield Rounds(run.rounds)
            return
        for _ in range(run.rounds):
            replies = yield Query(EFFECTIVE_OF, model="global")
            numbers = [arrays_of(reply.content, EFFECTIVE)["numbers"].astype(np.float64) for reply in replies]
            before = self.memory.get("shares")
            total: np.ndarray = np.sum(numbers, axis=0) if numbers else np.zeros(run.n_classes)
            self.memory["shares"] = shares_of(total, None if before is None else np.asarray(before))
            yield Rounds(1)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages with the class shares; without, before they are known."""
        messages = super().configure_train(server_round, arrays, config, grid)
        if "shares" not in self.memory:
            return messages
        shares = np.asarray(self.memory["shares"])
        return sent_along(messages, SHARES, array_record({"shares": shares / shares.sum()}))
