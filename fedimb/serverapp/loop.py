"""The loop: executes a method's program step by step, and on resume replays the finished steps.

A finished step is never executed again: its saved result is sent into the program instead, and the methods' state is
restored to what it was when the step ended. Within `Rounds` the loop continues at the round after the checkpoint.
"""

import logging
import time
from collections.abc import Callable, Generator
from typing import Any, Protocol

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.contracts import platform as names
from fedimb.errors import RunFailed, RunWaiting
from fedimb.plain import JsonObject
from fedimb.records import Arrays
from fedimb.serverapp.aggregator import Aggregator
from fedimb.serverapp.arrivals import Arrivals
from fedimb.serverapp.asynchronous_training import AsynchronousTraining
from fedimb.serverapp.auxiliary_model import AuxiliaryModel
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.exchange import Exchange
from fedimb.serverapp.method_state import method_records, take_method_records
from fedimb.serverapp.monitor import UNMOVED, unmoved
from fedimb.serverapp.pacing import Pacing
from fedimb.serverapp.pending import Pending
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
from fedimb.serverapp.training_rounds import TrainingRounds

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
        self._program, self.pacing, self.arrivals = program, pacing, arrivals or Arrivals(None, ())
        self.live = live
        self.models: dict[str, Aggregator | AuxiliaryModel] = {}
        self.rounds = TrainingRounds(method, exchange, context, self.models, evaluate_clients, pacing, self.arrivals)
        self.progress = self.rounds.progress
        self.pending = Pending(pacing is not None and pacing.pace.asynchronous and pacing.asynchronous.mixes)
        self.asynchronous: AsynchronousTraining | None = None
        if pacing is not None and pacing.pace.asynchronous:
            self.asynchronous = AsynchronousTraining(self.rounds, self.pending, pacing)
        self.saved: dict[str, Callable[[Any], None]] = {}  # models in the checkpoint that the program has not used yet
        self.memory: Callable[[], None] | None = None  # restores the methods' state at the checkpoint
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
            if isinstance(step, Reset | Replace) and step.model in ("global", self.context.final):
                self.context.next_part()  # of the model that is scored
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
        """Add the time and the server's steps since the last call to the progress, which a checkpoint then holds."""
        if self.context.server is not None:
            self.progress.server_steps += self.context.server.take_steps()
        now = time.monotonic()
        self.progress.elapsed_s += now - self._started
        self._started = now

    def _replay(self, index: int, step: Step) -> object:
        if isinstance(step, Reset):
            self.models.pop(step.model, None)
        if isinstance(step, Rounds | Replace):
            self.model(step.model)  # so that the next checkpoint includes it again
            self.rounds.estimate()
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
                return self._rounds(model, step)
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

    def _rounds(self, model: Aggregator, step: Rounds) -> None:
        """The rounds of the run's own model, or its versions, from the current progress."""
        if self.progress.round_in_step:
            self.rounds.estimate()  # if it goes on after the last round, no round does
        if self.live is not None and self.pacing is not None:
            return self.live.run(self, model, step, self.pacing)
        if self.asynchronous is not None:
            self.asynchronous.begin(step)
        for number in range(self.progress.round_in_step + 1, step.n + 1):
            before = model.parameters
            if self.asynchronous is not None:
                metrics = self.asynchronous.train(model, step.model, number)
            else:
                metrics = self.rounds.train(model, step.model)
            if unmoved(before, model.parameters):
                metrics[UNMOVED] = 1.0
            self.round_done(number)
            self.checkpointer.after_round(self, metrics, last=number == step.n)
        if self.asynchronous is not None:
            self.asynchronous.end()

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
        cohort = self.exchange.client_sampler.cohort(number, model=list(self.context.models).index(name))
        self.progress.virtual_s += cohort.virtual_s
        where = f"{name}, round {number + 1}"
        if not cohort.asked:
            log.warning("%s: no client is available; it stays as it is", where)
            return
        model.train(self.exchange, cohort, number, self.progress.server_round, where)

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
        instructions = self.exchange.complete(instructions, self.progress.server_round, {}, self.context.counts_sent)
        where = f"query {step.name}"
        outcome = self.exchange.send(step.name, instructions, {}, False, where, step.everyone, step.at_least)
        return [Reply(a.client, a.content) for a in outcome.replies if a.usable]


def _with(content: RecordDict, weights: Callable[[int], dict[str, ArrayRecord]] | None, client: int) -> RecordDict:
    """A query's content with the records of the model that it carries, if it carries one."""
    return content if weights is None else RecordDict({**content, **weights(client)})
