"""The loop: executes a method's program step by step, and on resume replays the finished steps.

A finished step is never executed again: its saved result is sent into the program instead, and the methods' state is
restored to what it was when the step ended. Within `Rounds` the loop continues at the round after the checkpoint.
"""

import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.contracts import platform as names
from fedimb.engine.lanes import WEIGHT, ClientReply, Instruction, LaneOutcome, Place
from fedimb.errors import RunDiverged, RunFailed, RunWaiting
from fedimb.paces.base import SECOND
from fedimb.paces.schedule import DROPPED, Training, Version, as_csv
from fedimb.plain import JsonObject
from fedimb.privacy.ledger import add_round
from fedimb.records import Arrays, array_record
from fedimb.serverapp.aggregator import Aggregator, chain, check_complete
from fedimb.serverapp.arrivals import Arrivals
from fedimb.serverapp.auxiliary_model import AuxiliaryModel
from fedimb.serverapp.context import Progress, RunContext
from fedimb.serverapp.exchange import Exchange
from fedimb.serverapp.method_state import method_records, take_method_records
from fedimb.serverapp.monitor import NOT_FINITE, UNMOVED, not_finite, unmoved
from fedimb.serverapp.pacing import Pacing
from fedimb.serverapp.pending import Arrived, Pending, mean_staleness
from fedimb.serverapp.steps import (
    Query,
    Replace,
    Reply,
    Reset,
    Rounds,
    ServerWork,
    Step,
    Wait,
    record_to_replies,
    replies_to_record,
    step_name,
)

log = logging.getLogger("fedimb")


class Checkpointer(Protocol):
    """Saves what must survive a kill; `fedimb.serverapp.checkpoint.FolderCheckpointer` writes to a run folder."""

    def event(self, **event: object) -> None:
        """Append to the journal, for people to read."""

    def before_step(self, loop: "Loop", step: Step) -> None:
        """Called before a step is executed; its model is built."""

    def save_result(self, index: int, result: RecordDict) -> None:
        """Save a finished step's result."""

    def load_result(self, index: int) -> RecordDict:
        """Load a finished step's result."""
        ...

    def after_round(self, loop: "Loop", metrics: dict[str, float], last: bool) -> None:
        """Evaluate, log and checkpoint as configured; ``last`` of its Rounds step."""

    def checkpoint(self, loop: "Loop") -> None:
        """Checkpoint now."""


class LiveTraining(Protocol):
    """Trains where arrivals are not known before; `fedimb.serverapp.live.Live` takes them from sites."""

    def run(self, loop: "Loop", model: Aggregator, step: Rounds, pacing: Pacing) -> None:
        """Execute a step from the loop's progress."""

    def state(self) -> tuple[Arrays, JsonObject]:
        """Arrays and plain values for a checkpoint."""
        ...

    def load(self, arrays: Arrays, info: JsonObject) -> None:
        """Inverse of `state`."""

    def forget(self) -> None:
        """Remove what the checkpoint just written makes superfluous."""


class Loop:
    """Runs one program.

    Args:
        method: the outermost strategy (a `Method`, or anything with ``program`` and Flower's hooks).
        exchange: sends messages to the clients.
        context: what the program sees; ``context.models["global"]`` builds the model and its aggregator.
        program: the program to run, usually the steps that gather the prior, then ``method.program(context)``.
        checkpointer: persistence and evaluation.
        evaluate_clients: whether clients also send a confusion matrix of the received model.
        pacing: who is in time in each round of training; None: everybody, and no clock runs.
        arrivals: whose updates the model is made of; None: nothing is reported of them.
        live: takes replies as they come, of a training without rounds; None: a schedule says when they do.
    """

    def __init__(
        self,
        method: Strategy,
        exchange: Exchange,
        context: RunContext,
        program: Callable[[RunContext], Generator[Step, object, None]],
        checkpointer: Checkpointer,
        evaluate_clients: bool = False,
        pacing: Pacing | None = None,
        arrivals: Arrivals | None = None,
        live: LiveTraining | None = None,
    ) -> None:
        self.method, self.exchange, self.context, self.checkpointer = method, exchange, context, checkpointer
        self._program, self.evaluate_clients = program, evaluate_clients
        self.progress = Progress()
        self.pacing, self.arrivals, self.live = pacing, arrivals or Arrivals(None, ()), live
        self.pending = Pending(pacing is not None and pacing.pace.asynchronous and pacing.asynchronous.mixes)
        self.models: dict[str, Aggregator | AuxiliaryModel] = {}
        self.saved: dict[str, Callable[[Any], None]] = {}  # models in the checkpoint that the program has not used yet
        self.memory: Callable[[], None] | None = None  # restores the methods' state at the checkpoint
        self.last_outcome: LaneOutcome | None = None  # of this round; None: nobody was asked
        self.method_metrics: dict[str, float] = {}  # metrics that the methods returned for the last round
        self._started = time.monotonic()

    def model(self, name: str = "global") -> Aggregator | AuxiliaryModel:
        """The model's current weights and aggregator; built on first use."""
        if name not in self.models:
            if name not in self.context.models:
                raise RunFailed(f"no model '{name}': the method must add it to run.models before Rounds or Query")
            self.models[name] = self.context.models[name](self.progress.resets)
            if name in self.saved:
                self.saved[name](self.models[name])
        return self.models[name]

    def run(self) -> None:
        """Execute the program from the current `progress`.

        Raises:
            RunWaiting: a `Wait` step is waiting for a person.
            RunFailed: too few replies, or the program does not match the run folder.
        """
        program = self._program(self.context)
        result: Any = None
        index = 0
        while True:
            try:
                step = program.send(result)
            except StopIteration:
                return
            if index < self.progress.done_steps:
                result = self._replay(index, step)
                if index == self.progress.done_steps - 1 and not self._within_step():
                    self._put_back()  # what the program did to aggregators while it was replayed is undone
            else:
                self._started = time.monotonic()
                self.checkpointer.event(step=index, event="start", name=step_name(step))
                if self.memory is not None and self._within_step():
                    self.memory()  # the checkpoint was written within this step
                    self._put_back()
                self.memory = None
                if isinstance(step, Rounds | Replace) or (isinstance(step, Query) and step.model is not None):
                    self.model(step.model or "global")
                self.checkpointer.before_step(self, step)
                result = self._execute(step)
                self._keep(index, step, result)
                self.progress.done_steps, self.progress.round_in_step = index + 1, 0
                self.progress.waiting = False
                self._clock()
                self.checkpointer.checkpoint(self)
                self.checkpointer.event(step=index, event="done", name=step_name(step))
            index += 1

    def _within_step(self) -> bool:
        """Whether the checkpoint was written within a step, not at its end."""
        return bool(self.progress.round_in_step) or self.progress.waiting

    def _put_back(self) -> None:
        """Models that replayed steps have named are again as the checkpoint has them."""
        for name in [name for name in self.saved if name in self.models]:
            self.saved.pop(name)(self.models[name])

    def _clock(self) -> None:
        now = time.monotonic()
        self.progress.elapsed_s += now - self._started
        self._started = now

    def _replay(self, index: int, step: Step) -> object:
        if isinstance(step, Reset):
            self.models.pop(step.model, None)
        if isinstance(step, Rounds | Replace):
            self.model(step.model)  # so that the next checkpoint includes it again
            self._estimate()
        saved = self.checkpointer.load_result(index)
        header: dict[str, Any] = dict(saved.config_records["step"])
        if header["name"] != step_name(step):
            raise RunFailed(
                f"step {index} of this run was {header['name']!s} but is now {step_name(step)}: the method's code "
                "changed; resume with the code the run was started with"
            )
        del saved["step"]
        # The program has just run again up to here and changed the methods' state: restore it to the end of the step.
        take_method_records(saved, self.method)
        if isinstance(step, Query):
            return record_to_replies(saved, [int(c) for c in header["clients"]])
        return saved if header.get("has-result") else None

    def _keep(self, index: int, step: Step, result: Any) -> None:
        mark: dict[str, Any] = {"name": step_name(step)}
        content = RecordDict()
        if isinstance(step, Query):
            mark["clients"] = [r.client for r in result]
            content = replies_to_record(result)
        elif isinstance(step, ServerWork):
            mark["has-result"] = result is not None
            content = result or content
        kept = {**content, **method_records(self.method), "step": ConfigRecord(mark)}
        self.checkpointer.save_result(index, RecordDict(kept))

    def _execute(self, step: Step) -> Any:
        match step:
            case Rounds():
                model = self.model(step.model)
                if isinstance(model, AuxiliaryModel):
                    return self._auxiliary_rounds(model, step)
                if self.progress.round_in_step:
                    self._estimate()  # if it goes on after the last round, no round does
                if self.pacing is not None and self.live is not None:
                    return self.live.run(self, model, step, self.pacing)
                if self.pacing is not None and self.pacing.pace.asynchronous:
                    return self._versions(model, step, self.pacing)
                for number in range(self.progress.round_in_step + 1, step.n + 1):
                    before = model.parameters
                    metrics = self._train_round(model, step.model)
                    if unmoved(before, model.parameters):
                        metrics[UNMOVED] = 1.0
                    self.round_done(number)
                    self.checkpointer.after_round(self, metrics, last=number == step.n)
                return None
            case Query():
                return self._query(step)
            case ServerWork():
                return step.fn()
            case Reset():
                self.progress.resets += 1
                self.models.pop(step.model, None)
                self.saved.pop(step.model, None)
                return None
            case Replace():
                return self._replace(step)
            case Wait():
                return self._wait(step)

    def _train_round(self, model: Aggregator, name: str) -> dict[str, float]:
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
            return metrics | self._clock_metrics([]) | {"time/round_s": time.monotonic() - started}
        instructions = self._train_messages(model, name, cohort.asked)
        waited = [instruction for instruction in instructions if instruction[0] not in cohort.late]
        left = [instruction for instruction in instructions if instruction[0] in cohort.late]
        reduce = model.reduction(self.exchange.weight_limits([c for c in cohort.asked if c not in cohort.late]))
        where = f"round {server_round}"
        least = None if pacing is None else pacing.least(cohort, self.exchange.least, where)
        outcome = self.exchange.send("train", waited, cohort.lost, reduce, where, unanswered=left, least=least)
        usable = [a for a in outcome.replies if a.usable]
        replies = self._shown(server_round, usable)
        aggregated = model.aggregate(server_round, outcome, waited, cohort.step)
        metrics |= self._aggregated(aggregated, usable) | self._clock_metrics(sorted(cohort.late | cohort.lost.keys()))
        if wrong := not_finite(outcome):
            metrics[NOT_FINITE] = float(wrong)
        metrics |= add_round(self.context.ledger, self.progress.privacy, cohort.asked, [a.metrics for a in usable])
        if cohort.virtual_s:
            metrics["time/simulated_wait_s"] = cohort.virtual_s
        self.method_metrics = self._notify_methods(server_round, replies)
        self.last_outcome = outcome
        return metrics | self.method_metrics | {"time/round_s": time.monotonic() - started}

    def next_round(self) -> int:
        """Count the next round of the run; returns its number. What the last one left is not shown as of this one."""
        self._estimate()
        self.last_outcome, self.method_metrics = None, {}
        self.progress.server_round += 1
        return self.progress.server_round

    def _train_messages(self, model: Aggregator, name: str, clients: Sequence[int], **more: Any) -> list[Instruction]:
        """This round's train messages for these clients, sorted; ``more`` is in their step records."""
        self.exchange.versions.message += 1
        nodes = {self.exchange.client_sampler.node(c): c for c in clients}
        server_round = self.progress.server_round
        instructions = model.configure(server_round, nodes)
        about: dict[str, Any] = {"evaluate": self.evaluate_clients, "model": name, "resets": self.progress.resets}
        about |= more if self.context.ledger is None else {"cohort": len(clients), **more}
        return self.exchange.complete(instructions, server_round, model.common_buffers, self.sent_counts(), **about)

    def _shown(self, server_round: int, usable: Sequence[ClientReply]) -> list[Reply]:
        """The clients' records ``x.*``, shown to the methods before aggregation."""
        replies = [Reply(a.client, RecordDict({k: v for k, v in a.content.items() if k[:2] == "x."})) for a in usable]
        for part in chain(self.method):
            if hasattr(part, "before_aggregation"):
                part.before_aggregation(server_round, replies)
        return replies

    def _aggregated(self, aggregated: dict[str, float], usable: Sequence[ClientReply]) -> dict[str, float]:
        """Metrics of replies that the model has just been updated by, which are counted as arrived."""
        self.arrivals.add([a.client for a in usable], [a.metrics[WEIGHT] for a in usable])
        self._estimate()
        metrics = {"train/loss": aggregated["train_loss"]} if "train_loss" in aggregated else {}
        metrics["data/replies"] = float(len(usable))
        metrics["train/steps"] = sum(a.metrics.get("steps", 0.0) for a in usable)
        metrics["time/client_s"] = sum(a.metrics.get("seconds", 0.0) for a in usable)
        return metrics

    def _clock_metrics(self, wasted: Sequence[int]) -> dict[str, float]:
        """Metrics of a run with a clock: its time, arrivals by class, steps of clients nobody waits for."""
        if self.pacing is None or not self.pacing.timed:
            return {}
        metrics = {"time/virtual_s": self.progress.virtual_ns / SECOND, **self.arrivals.metrics()}
        return metrics | {"async/wasted_steps": float(self.pacing.steps(wasted))}

    def _versions(self, model: Aggregator, step: Rounds, pacing: Pacing) -> None:
        """Train without rounds: each of ``step.n`` versions of the model is made of what arrives, and is one round.

        The schedule follows from the configuration alone, so a resumed run makes the same one again; what is in flight
        is in the checkpoint. At the end work in flight is abandoned: it is never trained, and its steps are counted.
        """
        before = self.progress.server_round - self.progress.round_in_step
        versions = pacing.versions(step.n, before)
        name = "trainings.csv" if not before else f"trainings_from_{before}.csv"
        self.context.artifact(name, as_csv(versions, pacing.asynchronous.discount).encode())
        for number in range(self.progress.round_in_step + 1, step.n + 1):
            weights, began = model.parameters, versions[number - 2].ends_ns if number > 1 else 0
            version = versions[number - 1]
            self.progress.virtual_ns += version.ends_ns - began
            metrics = self._version(model, step.model, version, number, pacing)
            if unmoved(weights, model.parameters):
                metrics[UNMOVED] = 1.0
            self.round_done(number)
            self.checkpointer.after_round(self, metrics, last=number == step.n)
        self.pending.clear()

    def _version(self, model: Aggregator, name: str, version: Version, number: int, pacing: Pacing) -> dict[str, float]:
        """Train what begins with a version of the model, and make the next one, ``number``, of what arrives.

        Raises:
            RunFailed: too few of the last replies are usable, or weights do not match the model's.
        """
        started = time.monotonic()
        server_round = self.next_round()
        metrics = {"data/participants": float(len(version.starts)), **self.context.learning_rates(server_round)}
        concerned = [one.client for one in version.starts or version.arrivals]
        instructions = self._train_messages(model, name, concerned, version=number - 1) if concerned else []
        if version.starts:
            self._train_starts(model, version, instructions, pacing)
        arrived = self.pending.take(number)
        self._check_recent(arrived, pacing)
        request = instructions[0][1] if instructions else None
        metrics |= self.make_version(model, arrived, request, version.arrivals, concerned)
        metrics |= self._clock_metrics([one.client for one in version.starts if one.makes is None])
        metrics["async/version"] = float(number)
        metrics["async/in_flight"] = float(version.in_flight)
        return metrics | {"time/round_s": time.monotonic() - started}

    def make_version(
        self,
        model: Aggregator,
        arrived: Arrived,
        request: Message | None,
        arrivals: Sequence[Training],
        asked: Sequence[int],
    ) -> dict[str, float]:
        """Make the next version of the model of what has arrived, and return its metrics.

        Args:
            request: any train message of this version; None: nobody was asked, and nothing has arrived.
            arrivals: the trainings that it is made of.
            asked: clients that began with the version before it.

        Raises:
            RunFailed, RunDiverged: see `Aggregator.apply_update`.
        """
        server_round, pacing = self.progress.server_round, self.pacing
        replies = self._shown(server_round, arrived.replies)
        aggregated: dict[str, float] = {}
        if arrived.replies:
            assert pacing is not None
            assert request is not None, "what arrives was asked for"
            pace = pacing.asynchronous
            update = arrived.mean_update(model.parameters, pace.mixes, pace.rate)
            aggregated = model.apply_update(server_round, update, arrived.mean_buffers(), arrived.replies, request)
        metrics = self._aggregated(aggregated, arrived.replies)
        metrics |= mean_staleness(arrivals, self.arrivals.counts, self.context.class_names)
        if wrong := sum(math.isinf(a.metrics.get("train_loss", 0.0)) for a in arrived.replies) + len(arrived.diverged):
            metrics[NOT_FINITE] = float(wrong)
        metrics |= add_round(None, self.progress.privacy, asked, [a.metrics for a in arrived.replies])
        self.method_metrics = self._notify_methods(server_round, replies)
        return metrics | self.method_metrics

    def _train_starts(
        self, model: Aggregator, version: Version, instructions: Sequence[Instruction], pacing: Pacing
    ) -> None:
        """Train the clients that begin with this version and will arrive; their updates are then pending."""
        by_client = {one.client: one for one in version.starts}
        coming = {c: one for c, one in by_client.items() if one.makes is not None}
        lost = {c: f"{DROPPED} (simulated)" for c, one in by_client.items() if one.lost == DROPPED}
        discount = pacing.asynchronous.discount
        places = {c: Place(str(one.makes), one.weight, discount(one.staleness)) for c, one in coming.items()}
        limits = self.exchange.weight_limits(coming, {c: one.weight for c, one in coming.items()})
        sent = [instruction for instruction in instructions if instruction[0] in coming or instruction[0] in lost]
        left = [
            instruction for instruction in instructions if instruction[0] not in coming and instruction[0] not in lost
        ]
        where = f"round {self.progress.server_round}"
        reduce = model.reduction(limits, places)
        outcome = self.exchange.send("train", sent, lost, reduce, where, unanswered=left, least=0.0)
        check_complete(self.progress.server_round, outcome.total, [a for a in outcome.replies if a.usable])
        self.pending.add(outcome, model.parameters, by_client)
        self.last_outcome = outcome

    def _check_recent(self, arrived: Arrived, pacing: Pacing) -> None:
        """Check the usable share of the last replies, as many as clients train at a time: one version has few."""
        recent = self.progress.recent
        recent += ["" for _ in arrived.replies] + [f"client {client}: {why}" for client, why in arrived.failed.items()]
        del recent[: -pacing.concurrency]
        failed = [why for why in recent if why]
        if len(recent) == pacing.concurrency and len(recent) - len(failed) < self.exchange.least * len(recent):
            failure = RunDiverged if all("diverged" in why for why in failed) else RunFailed
            raise failure(
                f"round {self.progress.server_round}: only {len(recent) - len(failed)} of the last {len(recent)} "
                f"replies are usable (clients.min_reply_fraction={self.exchange.least:g}). {'; '.join(failed[:3])}"
            )

    def _notify_methods(self, server_round: int, replies: Sequence[Reply]) -> dict[str, float]:
        """Pass the clients' records ``x.*`` to the methods; returns the metrics they report for the round."""
        said: dict[str, float] = {}
        strategy: Any = self.method
        while hasattr(strategy, "on_train_replies"):
            said |= strategy.on_train_replies(server_round, replies)
            strategy = strategy.inner
        return said

    def _auxiliary_rounds(self, model: AuxiliaryModel, step: Rounds) -> None:
        """The rounds of an auxiliary model's step, from the current progress.

        Raises:
            RunFailed: too few replies (``clients.min_reply_fraction``).
            RunDiverged: no reply is finite and matches the model.
        """
        first = self.progress.round_in_step
        shown = self.context.working(f"rounds of the {step.model}", step.n)
        shown(first)
        for number in range(first, step.n):
            self._auxiliary_round(model, step.model, number)
            shown(1)
            self.round_done(number + 1)
            self.checkpointer.checkpoint(self)

    def _auxiliary_round(self, model: AuxiliaryModel, name: str, number: int) -> None:
        exchange, progress = self.exchange, self.progress
        cohort = exchange.client_sampler.cohort(number, model=list(self.context.models).index(name))
        progress.virtual_s += cohort.virtual_s
        if not cohort.asked:
            log.warning("%s, round %d: no client is available; it stays as it is", name, number + 1)
            return
        exchange.versions.message += 1
        weights, about = model.parameters_for(cohort.asked), model.about(number)
        contents = {
            id(own): RecordDict({**about, model.key: array_record(own)}) for own in weights.values()
        }  # clients that are sent the same share one object
        instructions = [
            (c, Message(contents[id(weights[c])], exchange.client_sampler.node(c), f"query.{model.query}"))
            for c in cohort.asked
        ]
        instructions = exchange.complete(instructions, progress.server_round, {}, None)
        where = f"{name}, round {number + 1}"
        outcome = exchange.send(model.query, instructions, cohort.lost, False, where)
        replies = [Reply(a.client, a.content) for a in outcome.replies if a.usable]
        usable = [reply for reply in replies if model.fits(reply, where)]
        exchange.errors += len(replies) - len(usable)
        if replies and not usable:
            raise RunDiverged(f"{where}: no client sent finite weights that match the model; lower its learning rate")
        if usable:
            model.parameters = model.mean(usable)

    def round_done(self, number: int) -> None:
        """Count a round of the current step, from 1; a checkpoint may follow."""
        self.progress.round_in_step = number
        self._clock()

    def _replace(self, step: Replace) -> None:
        model = self.model(step.model)
        if isinstance(model, AuxiliaryModel):
            raise RunFailed(f"Replace: '{step.model}' is an auxiliary model of the method; set its parameters instead")
        if self.progress.round_in_step:
            return  # replaced and scored before the run was stopped: a second time would count a second round
        before = model.parameters
        model.replace(step.weights)
        self.progress.server_round += 1
        self.round_done(1)
        learned = step.model == "global" and bool(self.context.initial)  # before any round, by the method itself
        still = {UNMOVED: 1.0} if unmoved(before, model.parameters) and not learned else {}
        self.checkpointer.after_round(self, {names.REPLACED: 1.0} | still, last=True)

    def _wait(self, step: Wait) -> None:
        resumed = self.progress.waiting
        if resumed and (step.ready is None or step.ready()):
            return
        self.progress.waiting = True
        self.checkpointer.checkpoint(self)
        raise RunWaiting(f"waiting: {step.reason}")

    def _estimate(self) -> None:
        """If counts are estimated, estimate them from the current global model; before any round they are kept.

        If they follow what arrives, take those of what has arrived.
        """
        if self.arrivals.sets_prior and self.context.counts is not None:
            self.context.counts = self.arrivals.prior(self.context.counts)
        if self.context.estimate is not None and self.progress.server_round and "global" in self.models:
            self.context.counts = self.context.estimate(self.models["global"].parameters)

    def sent_counts(self) -> np.ndarray | None:
        """The counts that messages carry, if a part of the run uses them at the clients."""
        return self.context.counts if self.context.clients_need_counts else None

    def _query(self, step: Query) -> list[Reply]:
        self.exchange.versions.message += 1
        content = RecordDict(dict(step.content))
        weights = None if step.model is None else self.model(step.model).records()
        node = self.exchange.client_sampler.node
        instructions = [
            (c, Message(_with(step.content_of(c, content), weights, c), node(c), f"query.{step.name}"))
            for c in map(int, self.exchange.client_sampler.eligible)
            if step.to is None or c in step.to
        ]
        instructions = self.exchange.complete(instructions, self.progress.server_round, {}, self.sent_counts())
        where = f"query {step.name}"
        outcome = self.exchange.send(step.name, instructions, {}, False, where, step.everyone, step.at_least)
        return [Reply(a.client, a.content) for a in outcome.replies if a.usable]


def _with(content: RecordDict, weights: Callable[[int], dict[str, ArrayRecord]] | None, client: int) -> RecordDict:
    """A query's content with the records of the model that it carries, if it carries one."""
    return content if weights is None else RecordDict({**content, **weights(client)})
