"""Did the run learn? Watches a run's metric lines, round by round, for signs that its result is worth nothing.

Everything is judged from the lines alone: a run that was killed and resumed is judged like an uninterrupted one, on any
engine. A suspicion is a mark on the result, not an error; a minority class that is never predicted is not one.
"""

import logging
import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedimb.contracts.platform import REPLACED
from fedimb.engine.lanes import LaneOutcome
from fedimb.plain import JsonObject
from fedimb.records import Arrays
from fedimb.rundir.result import CLASSES, LOSS, WEIGHTS

log = logging.getLogger("fedimb")

NOT_FINITE, UNMOVED = "train/not_finite", "train/unmoved"
"""Metrics of a round, present only if there is something to say: replies that were not finite; weights that stayed."""

_WINDOW = 5  # rounds at either end of a run whose median loss is compared
_UP = 10.0  # times the first rounds' median
_STILL = 1e-6  # of the weights' norm: about what rounding to float32 changes


def unmoved(before: Arrays, after: Arrays) -> bool:
    """Whether a round left the weights as they were: an update below 1e-6 of their L2 norm."""
    pairs = [(np.asarray(after[name], np.float64), np.asarray(old, np.float64)) for name, old in before.items()]
    change = sum(float(np.sum((new - old) ** 2)) for new, old in pairs)
    return change <= _STILL**2 * sum(float(np.sum(new**2)) for new, _ in pairs)


def not_finite(outcome: LaneOutcome) -> int:
    """Number of replies with weights that are not finite or an infinite loss; NaN is a loss that is not sent."""
    return sum(reply.diverged or math.isinf(reply.metrics.get("train_loss", 0.0)) for reply in outcome.replies)


@dataclass
class _Course:
    """What a row's lines have shown: ``constant`` has the class of each of the last scored rounds, or None."""

    constant: deque[str | None]
    losses: list[float] = field(default_factory=list)
    rounds: int = 0
    moved: bool = False
    wrong: int = 0


class Monitor:
    """Collects the metric lines of a run, in order.

    Args:
        last_k: scored rounds behind a summary score (``evaluation.last_k``).
        lines: lines of an earlier process.
    """

    def __init__(self, last_k: int, lines: Iterable[JsonObject] = ()) -> None:
        self._last_k, self._rows = last_k, dict[str, _Course]()
        self._told: set[str] = set()
        for line in lines:
            self.observe(line)

    def observe(self, line: JsonObject) -> None:
        """Take in one line of metrics.jsonl."""
        metrics: Mapping[str, Any] = line["metrics"]
        course = self._rows.setdefault(line["row"], _Course(deque(maxlen=self._last_k)))
        if "data/participants" in metrics or REPLACED in metrics:
            course.rounds += 1
            course.moved |= UNMOVED not in metrics
        course.wrong += NOT_FINITE in metrics
        if metrics.get("train/loss") is not None:
            course.losses.append(metrics["train/loss"])
        if REPLACED in metrics:
            course.constant.clear()  # earlier scores belong to other weights
        if "test/macro_recall" in metrics:
            course.constant.append(_constant(metrics))

    def suspicions(self, row: str) -> dict[str, str]:
        """Kind -> why the row's result is suspect; empty if it is not."""
        course = self._rows.get(row)
        if course is None:
            return {}
        found = {}
        if course.wrong:
            found[LOSS] = f"weights or losses of clients were not finite in {course.wrong} of {course.rounds} rounds"
        ends = min(_WINDOW, len(course.losses) // 2)
        if ends and LOSS not in found:
            first, last = (statistics.median(part) for part in (course.losses[:ends], course.losses[-ends:]))
            if 0 < first * _UP < last:
                found[LOSS] = f"the training loss rose from {first:.3g} to {last:.3g}; lower the learning rate"
        if course.rounds and not course.moved:
            found[WEIGHTS] = f"no round of {course.rounds} moved the weights; check learning rates and clients"
        if course.constant and None not in course.constant:
            n, only = len(course.constant), ", ".join(dict.fromkeys(c for c in course.constant if c))
            when = f"each of the last {n} scored rounds" if n > 1 else "the last scored round"
            found[CLASSES] = f"predicts one class for all rows, in {when} ({only})"
        return found

    def warn(self, server_round: int) -> None:
        """Log each kind of suspicion once, as soon as there are as many rounds as a summary score takes."""
        for row, course in self._rows.items():
            for kind, why in self.suspicions(row).items() if course.rounds >= max(self._last_k, _WINDOW) else ():
                if kind not in self._told:
                    self._told.add(kind)
                    log.warning("round %d: suspect so far: %s: %s", server_round, row, why)


def _constant(metrics: Mapping[str, Any]) -> str | None:
    """What a scored round predicts for every row, or None if its predictions differ or the scores cannot tell."""
    keys = [key for key in metrics if key.startswith("test/recall/")]
    recalls = {key.partition("_")[2] or key: metrics[key] for key in keys}
    found = ", ".join(name for name, value in recalls.items() if value == 1.0)
    if "test/macro_specificity" in metrics:  # several labels per row: the same ones for every row
        recall, specificity = metrics["test/macro_recall"], metrics["test/macro_specificity"]
        if None in (recall, specificity) or not set(recalls.values()) <= {0.0, 1.0, None}:
            return None
        denied = sum(value != 1.0 for value in recalls.values()) / len(recalls)
        return (found or "no label") if abs(specificity - denied) < 1e-9 else None
    if metrics["test/mcc"] is not None or (metrics["test/defined_classes"] or 0) < 2:
        return None  # the MCC is 0/0 for a single true class, or a single predicted one
    return found or "a class without test rows"
