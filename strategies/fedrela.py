"""FedReLa: once, late, clients train some rows of frequent classes that look like rarer classes as rows of these.

"FedReLa", ICML 2026; the rule is in `fedimb.training.relabelling`. After most rounds every client draws new labels
from the class probabilities of the received model, trains on them until the end, and with a smaller learning rate. The
labels stay at the client; its class counts, validation and every score are of the labels as they were.

The paper's code averages five passes of a model in training mode over augmented rows, stops early by test scores, and
relabels only at clients that happen to train in that round; here it is one pass in evaluation mode at every client
with data. A client whose reply is lost keeps its labels and its learning rate.
"""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy

from fedimb.contracts.fedrela import MOVED, RELABEL, FedReLaSettings
from fedimb.errors import ConfigError
from fedimb.records import arrays_of
from fedimb.registry import register
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.steps import Query, Reply, Rounds
from fedimb.strategies.base import Method, Program, refuse_inner_method


@register("strategy", "fedrela", innermost=True, reads_labels=True)
class FedReLa(Method):
    """FedReLa: once, late, clients train rows of frequent classes that look like rarer ones as rows of these.

    Args:
        inner: the aggregator of the rounds.
        settings: a `FedReLaSettings`; or give its fields by name: ``FedReLa(FedAvg(), after=0.9)``.

    Raises:
        ConfigError: another method inside this one.
    """

    def __init__(self, inner: Strategy, settings: FedReLaSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = FedReLaSettings.of(settings, fields)
        refuse_inner_method("fedrela", inner)

    def _first(self, rounds: int) -> int:
        return math.floor(self.settings.after * rounds + 1e-9)  # .7 x 10 is 7, not 6.999...

    def check(self, rounds: int) -> None:
        """Refuse a share that leaves no round before or after."""
        if not 0 < self._first(rounds) < rounds:
            raise ConfigError(
                f"strategy.fedrela.after={self.settings.after:g}: of {rounds} rounds that leaves none before or none "
                "after the new labels; set it so that both are at least 1"
            )

    def program(self, run: RunContext) -> Program:
        """Rounds, new labels, and the other rounds."""
        first = self._first(run.rounds)
        yield Rounds(first)
        replies = yield Query(RELABEL, model="global")
        moved = _added(replies, run.n_classes)
        run.artifact("relabelled.csv", _table(moved, run.class_names))
        self.memory["moved"] = float(moved.sum())
        run.next_part()
        yield Rounds(run.rounds - first)

    def on_train_replies(self, server_round: int, replies: Sequence[Reply]) -> dict[str, float]:
        """The rows moved, of classes that clients reported."""
        return {"data/relabelled": float(self.memory["moved"])} if "moved" in self.memory else {}


def _added(replies: Sequence[Reply], classes: int) -> np.ndarray:
    if not replies:
        return np.zeros((classes, classes), np.int64)
    found = np.stack([arrays_of(reply.content, MOVED)["moved"] for reply in replies])
    total: np.ndarray = found.sum(axis=0, dtype=np.int64)
    return total


def _table(moved: np.ndarray, names: Sequence[str]) -> bytes:
    """The pairs of classes with rows moved, as CSV; classes are numbers where their names are not known."""
    known = dict(enumerate(names))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class", "trained as", "rows"])
    for of, to in zip(*np.nonzero(moved), strict=True):
        table.writerow([*(known.get(int(one), int(one)) for one in (of, to)), int(moved[of, to])])
    return text.getvalue().encode()
