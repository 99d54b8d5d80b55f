"""Federated active learning: label a few rows per cycle, chosen by a rule, and train on the labelled rows.

Cycle 1 labels rows at random. Each later cycle asks every client's rule (`fedimb.selection.queries`) for the next
``budget`` rows, gets them labelled (`fedimb.annotation`: revealed in simulation, or by people through a worklist, in
which case the run exits with 75 and is resumed later), and trains again, from fresh weights or continuing. The rounds
are divided into cycles of equal length. The federation knows class frequencies only from the labels given so far: the
prior is recounted in every cycle, and nobody counts the pool.

The cycle is that of FairFAL (arXiv 2603.10341) and the papers it compares with; here every rule runs in it. The oracle
and the counting are not from the paper.
"""

import json
import logging
import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb import registry
from fedimb.contracts.active import BALANCE, CHOICE, CYCLE, LABELLED, PROTOTYPES, SUMS, ActiveSettings
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.selection.prototypes import shared_prototypes
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.steps import Query, Reply, Reset, Step, Wait
from fedimb.strategies.base import Method, Program

log = logging.getLogger("fedimb")
KCFU = {("kcfu", True): {"own_loss": "kcfu=true", "adjusts_logits": True}}
"""Flags of a method whose clients train as in KAFAL: balanced softmax over their own label counts."""


@register(
    "strategy",
    "active",
    cycles=True,
    prior_view="labelled",
    reveals_counts=True,
    sets_prior=True,
    labelled_by="query",
    asks_for_labels=True,
    when=KCFU,
)
class Active(Method):
    """Federated active learning: label a few rows per cycle, chosen by a rule, and train on the labelled rows.

    Args:
        inner: the aggregator or method trained in each cycle.
        settings: an `ActiveSettings`; or give its fields by name: ``Active(FedAvg(), cycles=2)``.

    Raises:
        ConfigError: a value out of range, or a rule that does not exist.
    """

    name = "active"

    def __init__(self, inner: Strategy, settings: ActiveSettings | None = None, **fields: object) -> None:
        super().__init__(inner)
        self.settings = ActiveSettings.of(settings, fields)
        rule, args = self.settings.part("query")
        self.rule = registry.build("query", rule, **args)
        self.balance = self.settings.which == "adaptive" or getattr(self.rule, "embedding_model", "paper") == "code"

    def check(self, rounds: int) -> None:
        """Refuse a number of rounds that the cycles do not divide."""
        if rounds % (cycles := self.settings.cycles):
            near = cycles * max(1, round(rounds / cycles))
            raise ConfigError(
                f"strategy.{self.name}.cycles={cycles} does not divide rounds={rounds}: cycles are of equal "
                f"length; set rounds={near}"
            )

    def inner_rounds(self, rounds: int) -> int:
        """The rounds of one cycle."""
        return rounds // self.settings.cycles

    def shortest(self) -> int:
        """A few rounds in every cycle, because the last cycle trains on all labelled rows."""
        return self.settings.cycles * super().shortest()

    def program(self, run: RunContext) -> Program:
        """In each cycle: choose rows, get them labelled, count, train."""
        self.check(run.rounds)
        cycles, budget, first = self.settings.cycles, self.settings.budget, self.settings.first
        run.rounds //= cycles
        if budget < run.n_classes:
            log.warning("a budget of %d rows per client is less than the %d classes", budget, run.n_classes)
        for cycle in range(1, cycles + 1):
            content: dict[str, Any] = {"cycle": cycle, "rows": (first or budget) if cycle == 1 else budget}
            if cycle == 1:
                replies = yield self._ask("start", content)
            else:
                replies = yield from self._choose(run, content)
            self._read_replies(cycle, replies)
            replies = yield self._ask("collect", content)
            while missing := [r.client for r in replies if not arrays_of(r.content, LABELLED)["ready"][0]]:
                shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
                yield Wait(f"labels of cycle {cycle} from {len(missing)} clients ({shown}); see fedimb worklist status")
                replies = yield self._ask("collect", content)
            self._count(run, cycle, replies)
            if cycle == cycles:
                yield from run.find_taus()
            if cycle > 1 and self.settings.restart:
                yield Reset()
            elif cycle > 1:
                run.next_part()  # the same weights go on, on more rows
            yield from self.inner_program(run)

    def _ask(
        self, what: str, content: dict[str, Any], more: RecordDict | None = None, model: str | None = None
    ) -> Query:
        return Query(f"{self.name}_{what}", RecordDict({CYCLE: ConfigRecord(content), **(more or {})}), model)

    def _choose(self, run: RunContext, content: dict[str, Any]) -> Generator[Step, Any, list[Reply]]:
        if self.balance and "gamma" not in self.memory:  # once, at the first query, as in the paper
            replies = yield self._ask("balance", content, model="global")
            found = [float(arrays_of(r.content, BALANCE)["balance"][0]) for r in replies]
            self.memory["gamma"] = float(np.nanmean(found)) if np.isfinite(found).any() else 1.0
        if self.balance:
            content["gamma"] = float(self.memory["gamma"])
        more = RecordDict()
        if self.settings.share_prototypes:
            replies = yield self._ask("prototypes", content, model="global")
            sums = torch.from_numpy(np.stack([arrays_of(r.content, SUMS)["sums"] for r in replies]))
            more[PROTOTYPES] = array_record({"vectors": shared_prototypes(sums).numpy()})
        replies = yield self._ask("choose", content, more, model="global")
        return list(replies)

    def _read_replies(self, cycle: int, replies: list[Reply]) -> None:
        found = [arrays_of(r.content, CHOICE) for r in replies]
        distances = [float(one["distance"][0]) for one in found]
        self.memory["local_share"] = float(np.mean([one["local"][0] for one in found]))
        self.memory["distance"] = float(np.nanmean(distances)) if np.isfinite(distances).any() else math.nan
        self.memory["asked"] = np.array([int(one["asked"][0]) for one in found])

    def _count(self, run: RunContext, cycle: int, replies: list[Reply]) -> None:
        """Count what is labelled now, for the prior, the log and the method's table."""
        found = [arrays_of(r.content, LABELLED) for r in replies]
        labelled = np.stack([one["labelled"] for one in found])
        if run.method_sets_prior:
            run.counts = run.prior_from_counts(labelled)
        total = labelled.sum(0)
        guessed, judged = sum(one["guessed"] for one in found), sum(one["judged"] for one in found)
        self.memory["cycle"], self.memory["labelled"] = float(cycle), total
        accuracy = np.where(judged > 0, guessed / np.maximum(judged, 1), np.nan)
        history = np.array(self.memory.get("history", np.zeros((0, len(total)))))
        history = np.concatenate([history[: cycle - 1], total[None]]).astype(np.float64)
        self.memory["guessed"], self.memory["history"] = accuracy, history
        table = {
            "labelled_by_cycle": history.tolist(),
            "labelled_by_client": {str(r.client): one.tolist() for r, one in zip(replies, labelled, strict=True)},
            "pool_by_client": {str(r.client): int(one["pool"][0]) for r, one in zip(replies, found, strict=True)},
            "gamma": self.memory.get("gamma"),
            "pseudo_label_accuracy": [None if math.isnan(v) else float(v) for v in accuracy],
        }
        run.artifact(f"{self.name}.json", (json.dumps(table, indent=1) + "\n").encode())
        if run.train_counts is not None and run.minority:
            rare = list(run.minority)
            self.memory["tail_found"] = float(total[rare].sum() / max(1, run.train_counts[rare].sum()))

    def on_train_replies(self, server_round: int, replies: Sequence[Reply]) -> dict[str, float]:
        """Labels so far, in total and by class; the share of the rare classes' rows found; which models were used."""
        if "labelled" not in self.memory:
            return {}
        labelled = np.asarray(self.memory["labelled"])
        metrics = {"data/labelled": float(labelled.sum()), "data/cycle": float(self.memory["cycle"])}
        metrics |= {f"data/labelled/{c:02d}": float(n) for c, n in enumerate(labelled)}
        for name in ("tail_found", "gamma", "local_share", "distance"):
            if name in self.memory and math.isfinite(float(self.memory[name])):
                metrics[f"data/{name}"] = float(self.memory[name])
        guessed = np.asarray(self.memory["guessed"])
        if np.isfinite(guessed).any():
            metrics["data/pseudo_label_accuracy"] = float(np.nanmean(guessed))
        return metrics
