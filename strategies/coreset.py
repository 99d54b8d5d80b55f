"""Coresets by a rule that each client applies to its own rows: baselines for SCOPE.

One choice before training (after ``warmup`` federated rounds, for rules that need a partly trained model), then any
aggregator, loss and calibration on the rows kept. As the outer method in ``strategy=[coreset,scope]`` with
``match: inner``, it keeps as many rows of each class at each client as SCOPE kept there, which compares a rule at
exactly SCOPE's budget. The rules and their papers are in `fedimb.selection.coresets`; running them inside a federation,
their budgets and their inputs are not from these papers.
"""

import json
from collections.abc import Sequence

import numpy as np
import torch
from flwr.app import RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb import registry
from fedimb.contracts.coreset import CENTRES, CENTRES_OF, CHOOSE, CHOSEN, MEANS, CoresetSettings
from fedimb.contracts.scope import PRUNE
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.selection.centres import median_of_centres
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.panels import kept_panel
from fedimb.serverapp.steps import Query, Reply, Rounds, gather_counts
from fedimb.strategies.base import Method, Program


@register(
    "strategy",
    "coreset",
    prior_view="coreset",
    reveals_counts=True,
    labelled_by="rule",
    reads_labels=True,
    chooses_rows=True,
    chooses_around=("scope",),
    unread_with={
        "epochs": ("rule", ("random", "stratified_random", "full")),
        "encoder": ("rule", ("random", "stratified_random", "full")),
    },
)
class Coreset(Method):
    """Coresets by a rule that each client applies to its own rows: baselines for SCOPE.

    Args:
        inner: the aggregator or method trained on the coresets.
        settings: a `CoresetSettings`; or give its fields by name: ``Coreset(FedAvg(), keep=0.3)``.

    Raises:
        ConfigError: a value out of range, or a rule or encoder that does not exist.
    """

    def __init__(self, inner: Strategy, settings: CoresetSettings | None = None, **fields: object) -> None:
        super().__init__(inner)
        self.settings = CoresetSettings.of(settings, fields)
        self.rule, args = self.settings.part("rule")
        self._needs = registry.build("coreset", self.rule, **args).needs  # for some rules it depends on their arguments
        inside = self.settings.match == "inner"
        if self.rule == "full" and (self.settings.keep < 1 or inside):
            raise ConfigError("strategy.coreset.rule=full keeps every row: set strategy.coreset.keep=1 and match=none")
        if inside and not _scope_inside(inner):
            raise ConfigError("strategy.coreset.match=inner matches SCOPE's counts: use strategy=[coreset,scope]")

    def check(self, rounds: int) -> None:
        """Refuse a warm-up that leaves no rounds for training."""
        if self.settings.warmup >= rounds:
            raise ConfigError(
                f"strategy.coreset.warmup={self.settings.warmup} uses up all rounds={rounds}: lower it, or "
                "run more rounds"
            )

    def inner_rounds(self, rounds: int) -> int:
        """The rounds after the warm-up."""
        return rounds - self.settings.warmup

    def shortest(self) -> int:
        """The warm-up and the shortest inner run."""
        return self.settings.warmup + super().shortest()

    def program(self, run: RunContext) -> Program:
        """Warm up, choose, train; if SCOPE is the inner method, choose after SCOPE has chosen."""
        self.check(run.rounds)
        warmup = self.settings.warmup
        if warmup:
            yield Rounds(warmup)
            run.next_part()
        run.rounds -= warmup
        yield from self._chosen(run)
        run.rounds += warmup  # for the next labelling cycle, if there is one

    def _chosen(self, run: RunContext) -> Program:
        if self.settings.match == "none":
            yield from self._choose(run)
            yield from self.inner_program(run)
            return
        inner, result = self.inner_program(run), None
        while True:
            try:
                step = inner.send(result)
            except StopIteration:
                return
            result = yield step
            if isinstance(step, Query) and step.name == PRUNE:
                # SCOPE computes its prior from these replies; the coreset has the same counts, so the prior stays
                # right.
                yield from self._choose(run)

    def _choose(self, run: RunContext) -> Program:
        content = RecordDict()
        if "centres" in self._needs:
            replies = yield Query(CENTRES_OF, model="global")
            means = torch.from_numpy(np.stack([arrays_of(reply.content, MEANS)["means"] for reply in replies]))
            content[CENTRES] = array_record({"centres": median_of_centres(means).numpy()})
        if "global_counts" in self._needs:
            counts = yield from gather_counts("train")
            content["x.global"] = array_record({"counts": counts.sum(axis=0)})
        model = "global" if self._needs & {"features", "logits", "history", "centres", "embeddings"} else None
        replies = yield Query(CHOOSE, content, model=model)
        self._note(run, replies)

    def _note(self, run: RunContext, replies: list[Reply]) -> None:
        found = [arrays_of(reply.content, CHOSEN) for reply in replies]
        kept, held = (np.stack([one[name] for one in found]) for name in ("kept", "held"))
        if run.method_sets_prior:
            run.counts = run.prior_from_counts(kept)
        self.memory["kept"], self.memory["held"] = float(kept.sum()), float(held.sum())
        self.memory["steps"] = float(sum(int(one["steps"][0]) for one in found))
        clients = [str(reply.client) for reply in replies]
        table = {
            "rule": self.rule,
            "kept_fraction": float(kept.sum() / held.sum()),
            "by_client": {
                c: float(k.sum() / h.sum()) if h.any() else None for c, k, h in zip(clients, kept, held, strict=True)
            },
            "by_class": [None if not h else float(k / h) for k, h in zip(kept.sum(0), held.sum(0), strict=True)],
            "kept": kept.tolist(),
            "held": held.tolist(),
            "selection_steps": self.memory["steps"],
        }
        run.artifact("coreset.json", (json.dumps(table, indent=1) + "\n").encode())
        title = f"Coreset by {self.rule}: rows kept"
        run.artifact("panels/coreset.json", kept_panel(title, kept.sum(0), held.sum(0), run.class_names))

    def on_train_replies(self, server_round: int, replies: Sequence[Reply]) -> dict[str, float]:
        """The share of rows trained on, and the local steps spent on the choice, with every round after it."""
        if "held" not in self.memory:
            return {}
        share = float(self.memory["kept"] / self.memory["held"])
        return {"data/kept_fraction": share, "data/selection_steps": float(self.memory["steps"])}


def _scope_inside(inner: Strategy) -> bool:
    from fedimb.strategies.scope import Scope

    return isinstance(inner, Scope)
