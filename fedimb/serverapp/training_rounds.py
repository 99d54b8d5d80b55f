"""Rounds of the run's model: a cohort trains it, and what comes back is shown, aggregated, counted and reported."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.engine.lanes import WEIGHT, ClientReply, Instruction, LaneOutcome
from fedimb.paces.base import SECOND
from fedimb.privacy.ledger import add_round
from fedimb.serverapp.aggregator import Aggregator, chain
from fedimb.serverapp.arrivals import Arrivals
from fedimb.serverapp.auxiliary_model import AuxiliaryModel
from fedimb.serverapp.context import Progress, RunContext
from fedimb.serverapp.exchange import Exchange
from fedimb.serverapp.monitor import NOT_FINITE, not_finite
from fedimb.serverapp.pacing import Pacing
from fedimb.serverapp.steps import Reply

log = logging.getLogger("fedimb")


class TrainingRounds:
    """Trains one round at a time; the parts of it serve a training without rounds too.

    Args:
        method: the outermost strategy.
        exchange: sends messages to the clients.
        context: what the program sees.
        models: those in use, by name; class counts can be estimated from the weights of ``global``.
        evaluate_clients: whether clients also send a confusion matrix of the received model.
        pacing: who is in time in each round; None: everybody, and no clock runs.
        arrivals: whose updates the model is made of.

    Attributes:
        progress: of the run.
        last_outcome: of this round; None: nobody was asked.
        method_metrics: metrics that the methods returned for the last round.
    """

    def __init__(
        self,
        method: Strategy,
        exchange: Exchange,
        context: RunContext,
        models: Mapping[str, Aggregator | AuxiliaryModel],
        evaluate_clients: bool,
        pacing: Pacing | None,
        arrivals: Arrivals,
    ) -> None:
        self.method, self.exchange, self.context, self._models = method, exchange, context, models
        self._evaluate_clients, self.pacing, self.arrivals = evaluate_clients, pacing, arrivals
        self.progress = Progress()
        self.last_outcome: LaneOutcome | None = None
        self.method_metrics: dict[str, float] = {}

    def train(self, model: Aggregator, name: str) -> dict[str, float]:
        """Let a cohort train ``model``, called ``name``, and aggregate the usable replies.

        Returns:
            the round's metrics: losses, participants, steps, seconds, and those of the methods.

        Raises:
            RunFailed: fewer usable replies than configured, or weights that do not match the model's.
        """
        started = time.monotonic()
        server_round = self.next_round()
        pacing = self.pacing
        cohort = self.exchange.client_sampler.cohort(server_round) if pacing is None else pacing.cohort(server_round)
        self.progress.virtual_s += cohort.virtual_s
        self.progress.virtual_ns += cohort.ns
        metrics = {"data/participants": float(len(cohort.asked)), **self.context.learning_rates(server_round)}
        if not cohort.asked:
            log.warning("round %d: no client is available; the model stays as it is", server_round)
            return metrics | self.clock_metrics([]) | {"time/round_s": time.monotonic() - started}
        instructions = self.messages(model, name, cohort.asked)
        waited = [instruction for instruction in instructions if instruction[0] not in cohort.late]
        left = [instruction for instruction in instructions if instruction[0] in cohort.late]
        reduce = model.reduction(self.exchange.weight_limits([c for c in cohort.asked if c not in cohort.late]))
        where = f"round {server_round}"
        least = None if pacing is None else pacing.least(cohort, self.exchange.least, where)
        outcome = self.exchange.send("train", waited, cohort.lost, reduce, where, unanswered=left, least=least)
        usable = [a for a in outcome.replies if a.usable]
        replies = self.show(server_round, usable)
        aggregated = model.aggregate(server_round, outcome, waited, cohort.step)
        metrics |= self.add_arrived(aggregated, usable) | self.clock_metrics(sorted(cohort.late | cohort.lost.keys()))
        if wrong := not_finite(outcome):
            metrics[NOT_FINITE] = float(wrong)
        metrics |= add_round(self.context.ledger, self.progress.privacy, cohort.asked, [a.metrics for a in usable])
        if cohort.virtual_s:
            metrics["time/simulated_wait_s"] = cohort.virtual_s
        self.method_metrics = self.notify_methods(server_round, replies)
        self.last_outcome = outcome
        return metrics | self.method_metrics | {"time/round_s": time.monotonic() - started}

    def next_round(self) -> int:
        """Count the next round of the run; returns its number. What the last one left is not shown as of this one."""
        self.estimate()
        self.last_outcome, self.method_metrics = None, {}
        self.progress.server_round += 1
        return self.progress.server_round

    def estimate(self) -> None:
        """If counts are estimated, estimate them from the current global model; before any round they are kept.

        If they follow what arrives, take those of what has arrived.
        """
        if self.arrivals.sets_prior and self.context.counts is not None:
            self.context.counts = self.arrivals.prior(self.context.counts)
        if self.context.estimate is not None and self.progress.server_round and "global" in self._models:
            self.context.counts = self.context.estimate(self._models["global"].parameters)

    def messages(self, model: Aggregator, name: str, clients: Sequence[int], **more: Any) -> list[Instruction]:
        """This round's train messages for these clients, sorted; ``more`` is in their step records."""
        self.exchange.versions.message += 1
        nodes = {self.exchange.client_sampler.node(c): c for c in clients}
        server_round, counts = self.progress.server_round, self.context.counts_sent
        instructions = model.configure(server_round, nodes)
        about: dict[str, Any] = {"evaluate": self._evaluate_clients, "model": name, "resets": self.progress.resets}
        about |= more if self.context.ledger is None else {"cohort": len(clients), **more}
        return self.exchange.complete(instructions, server_round, model.common_buffers, counts, **about)

    def show(self, server_round: int, usable: Sequence[ClientReply]) -> list[Reply]:
        """Show the methods the clients' records ``x.*`` before aggregation; returns these."""
        replies = [Reply(a.client, RecordDict({k: v for k, v in a.content.items() if k[:2] == "x."})) for a in usable]
        for part in chain(self.method):
            if hasattr(part, "before_aggregation"):
                part.before_aggregation(server_round, replies)
        return replies

    def add_arrived(self, aggregated: dict[str, float], usable: Sequence[ClientReply]) -> dict[str, float]:
        """Count replies that the model has just been updated by as arrived; returns the round's metrics of them."""
        self.arrivals.add([a.client for a in usable], [a.metrics[WEIGHT] for a in usable])
        self.estimate()
        metrics = {"train/loss": aggregated["train_loss"]} if "train_loss" in aggregated else {}
        metrics["data/replies"] = float(len(usable))
        metrics["train/steps"] = sum(a.metrics.get("steps", 0.0) for a in usable)
        metrics["time/client_s"] = sum(a.metrics.get("seconds", 0.0) for a in usable)
        return metrics

    def clock_metrics(self, wasted: Sequence[int]) -> dict[str, float]:
        """Metrics of a run with a clock: its time, arrivals by class, steps of clients nobody waits for."""
        if self.pacing is None or not self.pacing.timed:
            return {}
        metrics = {"time/virtual_s": self.progress.virtual_ns / SECOND, **self.arrivals.metrics()}
        return metrics | {"async/wasted_steps": float(self.pacing.steps(wasted))}

    def notify_methods(self, server_round: int, replies: Sequence[Reply]) -> dict[str, float]:
        """Pass the clients' records ``x.*`` to the methods; returns the metrics they report for the round."""
        said: dict[str, float] = {}
        strategy: Any = self.method
        while hasattr(strategy, "on_train_replies"):
            said |= strategy.on_train_replies(server_round, replies)
            strategy = strategy.inner
        return said
