"""Class-incremental learning: classes arrive in phases, and each phase is trained on its own classes' rows, and on the
few of earlier phases that each client has kept.

At the end of a phase every client chooses anew which of the rows it has just trained on it keeps (at most ``memory``,
by a rule of the kind coreset); no row leaves it, and rows of earlier phases that it has not kept are not trained on
again. Then the inner method trains the phase's rounds on the phase's rows and the memory, from the weights of the phase
before. With ``memory: 0`` this is fine-tuning, with a memory of all rows it is training on all classes seen so far.
Prior and counts are of the rows trained on in the phase.

Rehearsal with herding and an equal share of the memory for every class is iCaRL's (Rebuffi et al., CVPR 2017), without
its nearest-mean classifier and its distillation. Which classes a phase has:
`fedimb.data.partitioners.class_incremental`. How well they are still found: `fedimb.evaluation.phases`.
"""

import json
from collections.abc import Sequence

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb import registry
from fedimb.contracts.class_incremental import BEGIN, OF_PHASE, PHASE, SEEN, ClassIncrementalSettings
from fedimb.data.federation import Phases
from fedimb.errors import ConfigError, RunFailed
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Reply
from fedimb.strategies.base import Method, Program

_MODEL = frozenset({"features", "logits", "history", "embeddings"})
"""Inputs of a rule for which the client needs the model."""


@register(
    "strategy",
    "class_incremental",
    phased=True,
    prior_view="phase",
    reveals_counts=True,
    sets_prior=True,
    reads_labels=True,
    chooses_rows=True,
)
class ClassIncremental(Method):
    """Class-incremental learning: each phase is trained on its own classes' rows and on a memory of earlier ones.

    Args:
        inner: the aggregator or method that trains each phase.
        settings: a `ClassIncrementalSettings`; or give its fields by name: ``ClassIncremental(FedAvg(), memory=50)``.

    Raises:
        ConfigError: a value out of range, a rule that does not exist, or one that keeps every row.
    """

    def __init__(self, inner: Strategy, settings: ClassIncrementalSettings | None = None, **fields: object) -> None:
        super().__init__(inner)
        self.settings = ClassIncrementalSettings.of(settings, fields)
        rule, args = self.settings.part("rule")
        self._needs: frozenset[str] = registry.build("coreset", rule, **args).needs
        self._phases = 0
        if rule == "full":
            raise ConfigError(
                "strategy.class_incremental.rule=full keeps every row: give a rule that chooses; for a memory of all "
                "rows, set strategy.class_incremental.memory to as many as a client holds"
            )

    def check_server(self, server: Server) -> None:
        """Refuse data without phases, without the server's test rows, and rounds that do not fit the phases."""
        self._phases = len(server.phases())
        if not self._phases:
            raise ConfigError(
                "strategy=class_incremental trains phases, which this partition does not have; set "
                "partition=class_incremental, with partition.rows={name: ...} for the one that deals the rows"
            )
        if not server.tests():
            raise ConfigError(
                "strategy=class_incremental scores every phase's model on the server's test rows, and there are none; "
                "set data.test, as in {name: stratified, fraction: 0.2}"
            )
        if server.timed():
            raise ConfigError(
                "strategy=class_incremental with pace.clock=true: the clock plans how long clients take by all of "
                "their rows, and they train on those of one phase; set pace.clock=false"
            )
        self._plan(server.rounds(), self._phases)

    def _plan(self, rounds: int, phases: int) -> list[int]:
        """Rounds of each phase.

        Raises:
            ConfigError: they do not fit the run's.
        """
        given = self.settings.rounds
        if given is None:
            if rounds % phases or rounds < phases:
                near = phases * max(1, round(rounds / phases))
                raise ConfigError(
                    f"{phases} phases do not divide rounds={rounds}; set rounds={near}, or the rounds of each in "
                    "strategy.class_incremental.rounds"
                )
            return [rounds // phases] * phases
        if len(given) != phases or sum(given) != rounds:
            raise ConfigError(
                f"strategy.class_incremental.rounds={list(given)} are {len(given)} phases of {sum(given)} rounds, but "
                f"there are {phases} phases, and rounds={rounds}; give {phases} numbers that add up to it"
            )
        return list(given)

    def inner_rounds(self, rounds: int) -> int:
        """The rounds of the shortest phase."""
        return min(self.settings.rounds or [rounds // max(1, self._phases)])

    def shortest(self) -> int:
        """A few rounds in every phase; all of them if they are given one by one."""
        own = self.settings.rounds
        return sum(own) if own else max(1, self._phases) * super().shortest()

    def program(self, run: RunContext) -> Program:
        """In each phase: let every client keep rows of the phases before, show it the new ones, count, train."""
        if run.server is None:
            raise ConfigError(
                "strategy=class_incremental needs to know which class appears when: run it with fedimb, not in a plain "
                "ServerApp"
            )
        phases, before = run.server.phases(), list[int]()
        plan = self._plan(run.rounds, len(phases))
        model = "global" if self.settings.memory and self._needs & _MODEL else None
        for number, (classes, rounds) in enumerate(zip(phases, plan, strict=True), start=1):
            run.rounds = rounds
            if number > 1:
                run.next_part()
            said = {"new": classes, "old": before, "number": [number]}
            content = RecordDict({PHASE: array_record({key: np.array(ids, np.int64) for key, ids in said.items()})})
            # A client that is not told of the phase would go on with the last one's rows.
            replies = yield Query(BEGIN, content, model if number > 1 else None, everyone=True)
            self._count(run, number, phases, replies)
            yield from self.inner_program(run)
            before += classes

    def _count(self, run: RunContext, number: int, phases: Phases, replies: Sequence[Reply]) -> None:
        """Count what the phase is trained on, for the prior, the log and the method's table."""
        found = [arrays_of(reply.content, SEEN) for reply in replies]
        rows, memory = (np.stack([one[name] for one in found]).astype(np.int64) for name in ("rows", "memory"))
        if not rows.any():
            raise RunFailed(f"no client has a row to train on in phase {number}: nothing can be learned in it")
        if run.method_sets_prior:
            run.counts = run.prior_from_counts(rows[rows.any(axis=1)])
        history = np.array(self.memory.get("history", np.zeros((0, 2, run.n_classes), np.int64)))[: number - 1]
        history = np.concatenate([history, np.stack([rows.sum(axis=0), memory.sum(axis=0)])[None]])
        self.memory["history"] = history
        self.memory["phase"], self.memory["kept"] = float(number), float(memory.sum())
        self.memory["steps"] = float(self.memory.get("steps", 0.0) if number > 1 else 0.0)
        self.memory["steps"] += float(sum(int(one["steps"][0]) for one in found))
        table = {
            "phases": [[run.class_names[c] for c in classes] for classes in phases],
            "rows_by_phase": history[:, 0].tolist(),
            "memory_by_phase": history[:, 1].tolist(),
            "memory_by_client": {str(r.client): one.tolist() for r, one in zip(replies, memory, strict=True)},
            "selection_steps": self.memory["steps"],
        }
        run.artifact("class_incremental.json", (json.dumps(table, indent=1) + "\n").encode())

    def on_train_replies(self, server_round: int, replies: Sequence[Reply]) -> dict[str, float]:
        """The round's phase, the rows in all memories, and the local steps spent on choosing them so far."""
        if "phase" not in self.memory:
            return {}
        return {
            OF_PHASE: float(self.memory["phase"]),
            "data/memory": float(self.memory["kept"]),
            "data/selection_steps": float(self.memory["steps"]),
        }
