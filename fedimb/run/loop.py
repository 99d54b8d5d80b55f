"""The one loop: executes a method's program step by step, and on resume replays what is already done.

A finished step is never executed again: its saved result is sent into the program instead, and what the methods
remember is put back to what it was when the step ended. Within `Rounds` the loop goes on at the round after the
checkpoint.
"""

import logging
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.contracts import platform as names
from fedimb.engine.lanes import LaneOutcome
from fedimb.errors import RunFailed, RunWaiting
from fedimb.records import array_record
from fedimb.run.aggregator import Aggregator
from fedimb.run.exchange import Exchange
from fedimb.run.further import Further
from fedimb.run.memory import memory_of, take_memory
from fedimb.run.rounds import train_round
from fedimb.run.steps import (
    Query,
    Replace,
    Reply,
    Reset,
    Rounds,
    ServerWork,
    Step,
    Wait,
    name_of,
    record_to_replies,
    replies_to_record,
)
from fedimb.run.view import Keeper, Progress, RunView

log = logging.getLogger("fedimb")


class Loop:
    """Runs one program.

    Args:
        method: the outermost strategy (a `Method`, or anything with ``program`` and Flower's hooks).
        exchange: how clients are reached.
        view: what the program sees; ``view.models["global"]`` builds the model and its aggregator.
        program: the program to run, usually the prior's prelude followed by ``method.program(view)``.
        keeper: persistence and evaluation.
        evaluate_clients: whether clients also send the confusion matrix of the model they receive.
    """

    def __init__(
        self,
        method: Strategy,
        exchange: Exchange,
        view: RunView,
        program: Callable[[RunView], Generator[Step, Any, None]],
        keeper: Keeper,
        evaluate_clients: bool = False,
    ) -> None:
        self.method, self.exchange, self.view, self.keeper = method, exchange, view, keeper
        self._program, self.evaluate_clients = program, evaluate_clients
        self.progress = Progress()
        self.models: dict[str, Aggregator | Further] = {}
        self.saved: dict[str, Callable[[Any], None]] = {}  # checkpointed models the program has not named yet
        self.memory: Callable[[], None] | None = None  # puts back what the methods remembered at the checkpoint
        self.last_outcome: LaneOutcome | None = None
        self.method_metrics: dict[str, float] = {}  # what the methods said about the last round
        self._started = time.monotonic()

    def model(self, name: str = "global") -> Aggregator | Further:
        """The model's current weights and aggregator; built on first use."""
        if name not in self.models:
            if name not in self.view.models:
                raise RunFailed(f"no model '{name}': the method must add it to run.models before Rounds or Query")
            self.models[name] = self.view.models[name](self.progress.resets)
            if name in self.saved:
                self.saved.pop(name)(self.models[name])
        return self.models[name]

    def run(self) -> None:
        """Execute the program from where `progress` stands.

        Raises:
            RunWaiting: a `Wait` step needs a person.
            RunFailed: too few replies, or the program does not match what the run folder holds.
        """
        program = self._program(self.view)
        result: Any = None
        index = 0
        while True:
            try:
                step = program.send(result)
            except StopIteration:
                return
            if index < self.progress.done_steps:
                result = self._replay(index, step)
            else:
                self._started = time.monotonic()
                self.keeper.event(step=index, event="start", name=name_of(step))
                if self.memory is not None and (self.progress.round_in_step or self.progress.waiting):
                    self.memory()  # the checkpoint was written within this step
                self.memory = None
                result = self._execute(step)
                self._keep(index, step, result)
                self.progress.done_steps, self.progress.round_in_step = index + 1, 0
                self.progress.waiting = False
                self._clock()
                self.keeper.checkpoint(self)
                self.keeper.event(step=index, event="done", name=name_of(step))
            index += 1

    def _clock(self) -> None:
        now = time.monotonic()
        self.progress.elapsed_s += now - self._started
        self._started = now

    def _replay(self, index: int, step: Step) -> Any:
        if isinstance(step, Rounds | Replace):
            self.model(step.model)  # so that the next checkpoint holds it again
            self.estimate()
        saved = self.keeper.load_result(index)
        header: dict[str, Any] = dict(saved.config_records["step"])
        if header["name"] != name_of(step):
            raise RunFailed(
                f"step {index} of this run was {header['name']!s}, and is {name_of(step)} now: the method's code "
                "changed; resume with the code the run was started with"
            )
        del saved["step"]
        # The program just ran again up to here, over what it had remembered: back to how the step left it.
        take_memory(saved, self.method)
        if isinstance(step, Query):
            return record_to_replies(saved, [int(c) for c in header["clients"]])
        return saved if header.get("has-result") else None

    def _keep(self, index: int, step: Step, result: Any) -> None:
        mark: dict[str, Any] = {"name": name_of(step)}
        content = RecordDict()
        if isinstance(step, Query):
            mark["clients"] = [r.client for r in result]
            content = replies_to_record(result)
        elif isinstance(step, ServerWork):
            mark["has-result"] = result is not None
            content = result or content
        kept = {**content, **memory_of(self.method), "step": ConfigRecord(mark)}
        self.keeper.save_result(index, RecordDict(kept))

    def _execute(self, step: Step) -> Any:
        match step:
            case Rounds():
                model = self.model(step.model)
                if isinstance(model, Further):
                    return model.rounds(self, step)
                for number in range(self.progress.round_in_step + 1, step.n + 1):
                    metrics = train_round(self, model, step.model)
                    self.round_done(number)
                    self.keeper.after_round(self, metrics, last=number == step.n)
                return None
            case Query():
                return self._query(step)
            case ServerWork():
                return step.fn()
            case Reset():
                self.progress.resets += 1
                self.models.pop(step.model, None)
                return None
            case Replace():
                return self._replace(step)
            case Wait():
                return self._wait(step)

    def round_done(self, number: int) -> None:
        """Count a round of the step at hand, from 1: after it a checkpoint may be written."""
        self.progress.round_in_step = number
        self._clock()

    def _replace(self, step: Replace) -> None:
        model = self.model(step.model)
        if isinstance(model, Further):
            raise RunFailed(f"Replace: '{step.model}' is a model of the method's own; set its parameters instead")
        model.replace(step.weights)
        self.progress.server_round += 1
        self._clock()
        self.keeper.after_round(self, {names.REPLACED: 1.0}, last=True)

    def _wait(self, step: Wait) -> None:
        resumed = self.progress.waiting
        if resumed and (step.ready is None or step.ready()):
            return
        self.progress.waiting = True
        self.keeper.checkpoint(self)
        raise RunWaiting(f"waiting: {step.reason}")

    def estimate(self) -> None:
        """Where counts are estimated, estimate them from the global model as it is; before any round they stay."""
        if self.view.estimate is not None and self.progress.server_round and "global" in self.models:
            self.view.counts = self.view.estimate(self.models["global"].parameters)

    def sent_counts(self) -> np.ndarray | None:
        """The counts that travel with messages, where a part of the run reads them at the clients."""
        return self.view.counts if self.view.clients_need_counts else None

    def _query(self, step: Query) -> list[Reply]:
        self.exchange.versions.message += 1
        content = RecordDict(dict(step.content))
        buffers: dict[str, np.ndarray] = {}
        if step.model is not None:
            model = self.model(step.model)
            content[names.ARRAYS], buffers = array_record(model.parameters), model.buffers
        orders = [
            (c, Message(step.content_of(c, content), self.exchange.roster.node(c), f"query.{step.name}"))
            for c in map(int, self.exchange.roster.eligible)
        ]
        orders = self.exchange.complete(orders, self.progress.server_round, buffers, self.sent_counts())
        outcome = self.exchange.send(step.name, orders, {}, False, f"query {step.name}", step.everyone)
        return [Reply(a.client, a.content) for a in outcome.answers if a.usable]
