"""Did the run learn? Watches a run's metric lines, round by round, for signs that its result is worth nothing.

Everything is judged from the lines and the server's number of test rows alone: a run that was killed and resumed is
judged like an uninterrupted one, on any engine. A suspicion is a mark on the result, not an error; a minority class
that is never predicted is not one.
"""

import logging
import math
import re
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedimb.contracts.class_incremental import OF_PHASE
from fedimb.contracts.platform import REPLACED
from fedimb.engine.lanes import LaneOutcome
from fedimb.evaluation.metrics import TESTED
from fedimb.evaluation.recall_drop import THRESHOLD, RecallDrop
from fedimb.plain import JsonObject
from fedimb.records import Arrays
from fedimb.rundir.result import CLASSES, LOSS, WEIGHTS, PartTracker

log = logging.getLogger("fedimb")

NOT_FINITE, UNMOVED = "train/not_finite", "train/unmoved"
"""Metrics of a round, present only if there is something to say: replies that were not finite; weights that stayed."""

ALARM = "alarm/recall_drop"
"""Metric of a round, present only from an alarm on: number of classes whose recall fell."""
RESET = "model/reset"
"""Metric of the first round after the model was drawn anew, how often it was: earlier scores are of another model."""

_WINDOW = 5  # rounds at either end of a part of the training whose median loss is compared
_UP = 10.0  # times the first rounds' median
_STILL = 1e-6  # of the weights' norm: about what rounding to float32 changes


def unmoved(before: Arrays, after: Arrays) -> bool:
    """Whether a round left the weights as they were: an update below 1e-6 of their L2 norm. No: there are none."""
    if not before:
        return False
    pairs = [(np.asarray(after[name], np.float64), np.asarray(old, np.float64)) for name, old in before.items()]
    change = sum(float(np.sum((new - old) ** 2)) for new, old in pairs)
    return change <= _STILL**2 * sum(float(np.sum(new**2)) for new, _ in pairs)


def not_finite(outcome: LaneOutcome) -> int:
    """Number of replies with weights that are not finite or an infinite loss; NaN is a loss that is not sent."""
    return sum(reply.diverged or math.isinf(reply.metrics.get("train_loss", 0.0)) for reply in outcome.replies)


@dataclass
class _Course:
    """What a row's lines have shown: ``constant`` has the class of each of the last scored rounds, or None.

    ``recalls`` has the watch of each class by its metric's name, ``alarms`` what it said first, ``losses`` the training
    losses of each part of the training since the model was last drawn anew.
    """

    constant: deque[str | None]
    losses: list[list[float]] = field(default_factory=lambda: [[]])
    rounds: int = 0
    moved: bool = False
    wrong: int = 0
    resets: int = 0
    phase: float | None = None
    parts: PartTracker = field(default_factory=PartTracker)
    recalls: dict[str, RecallDrop] = field(default_factory=dict)
    alarms: dict[str, str] = field(default_factory=dict)

    def risen(self) -> tuple[float, float] | None:
        """Median losses (first, last) of the first part that rose tenfold and stayed up; None: no part did.

        Losses of two parts are of other rows, labels or weights: neither rise nor fall is read from one to the next,
        but a later part whose loss ends low again has outlived the rise.
        """
        medians = [tuple(map(statistics.median, _ends(part))) for part in self.losses if part]
        for first, last in medians:
            if 0 < first * _UP < min(last, medians[-1][1]):
                return first, last
        return None

    def watch(self, line: JsonObject, tested: Sequence[int]) -> None:
        """Follow the recall of every class: on the server's test rows, or else on the clients' rows.

        Args:
            tested: test rows of each class; empty if the clients have them.
        """
        metrics: Mapping[str, Any] = line["metrics"]
        prefixes = {name.split("/")[0] for name in self.recalls} or {"test" if _tested(metrics) else "client"}
        for name in (key for key in metrics if key.split("/")[0] in prefixes and key.split("/")[1] == "recall"):
            watched = self.recalls.setdefault(name, RecallDrop())
            recall = math.nan if metrics[name] is None else float(metrics[name])
            own = tested[int(re.split("[/_]", name)[2])] if len(tested) and name.startswith("test/") else None
            rows = metrics.get(name.replace("/recall/", TESTED, 1)) if own is None else own
            if watched.add(recall, rows or math.inf) > THRESHOLD and name not in self.alarms:
                text = f"recall {recall:.3f} in round {line['step']}, {watched.expected:.3f} expected"
                self.alarms[name] = f"{text} from the scored rounds before it fell"


class Monitor:
    """Collects the metric lines of a run, in order.

    Args:
        last_k: scored rounds behind a summary score (``evaluation.last_k``).
        lines: lines of an earlier process.
        tested: the server's test rows of each class, if it has any.
    """

    def __init__(self, last_k: int, lines: Iterable[JsonObject] = (), tested: Sequence[int] = ()) -> None:
        self._last_k, self._rows, self._tested = last_k, dict[str, _Course](), tested
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
        course.resets = int(metrics.get(RESET, course.resets))
        begins, phase = course.parts.begins(metrics), metrics.get(OF_PHASE, course.phase)
        if begins:
            course.constant.clear()  # the summary does not hold earlier scores (`fedimb.rundir.result.of_last_part`)
        if REPLACED in metrics or RESET in metrics or (begins and phase == course.phase):
            course.recalls.clear()  # other rows, labels or weights; not for a phase, where forgetting shall be told
        course.phase = phase
        if RESET in metrics:
            course.losses = [[]]
        elif begins:
            course.losses.append([])
        if metrics.get("train/loss") is not None:
            course.losses[-1].append(metrics["train/loss"])
        course.watch(line, self._tested)
        if "test/macro_recall" in metrics:
            course.constant.append(_constant(metrics))

    def resets(self) -> int:
        """How often the model had been drawn anew, as far as the lines say."""
        return max((course.resets for course in self._rows.values()), default=0)

    def alarms(self, row: str) -> dict[str, str]:
        """Class name -> when and how far its recall fell, of the classes whose recall did.

        An alarm is no suspicion: the result may be right, but a site's data or labels may have changed.
        """
        found = self._rows[row].alarms if row in self._rows else {}
        return {name.split("/", 2)[2].partition("_")[2] or name: why for name, why in found.items()}

    def suspicions(self, row: str) -> dict[str, str]:
        """Kind -> why the row's result is suspect; empty if it is not."""
        course = self._rows.get(row)
        if course is None:
            return {}
        found = {}
        if course.wrong:
            found[LOSS] = f"weights or losses of clients were not finite in {course.wrong} of {course.rounds} rounds"
        if LOSS not in found and (rise := course.risen()) is not None:
            found[LOSS] = f"the training loss rose from {rise[0]:.3g} to {rise[1]:.3g}; lower the learning rate"
        if course.rounds and not course.moved:
            found[WEIGHTS] = f"no round of {course.rounds} moved the weights; check learning rates and clients"
        if course.constant and None not in course.constant:
            n, only = len(course.constant), ", ".join(dict.fromkeys(c for c in course.constant if c))
            when = f"each of the last {n} scored rounds" if n > 1 else "the last scored round"
            found[CLASSES] = f"predicts one class for all rows, in {when} ({only})"
        return found

    def warn(self, server_round: int) -> None:
        """Log each alarm once, and each kind of suspicion as soon as there are as many rounds as a summary takes."""
        for row, course in self._rows.items():
            for name, why in self.alarms(row).items():
                if (told := f"{ALARM} {row} {name}") not in self._told:
                    self._told.add(told)
                    log.warning("alarm: %s: class %s: %s", row, name, why)
            for kind, why in self.suspicions(row).items() if course.rounds >= max(self._last_k, _WINDOW) else ():
                few = len(course.constant) < self._last_k, len(course.losses[-1]) < _WINDOW and not course.wrong
                early = {CLASSES: few[0], LOSS: few[1]}.get(kind, False)  # in a part that has just begun
                if kind not in self._told and not early:
                    self._told.add(kind)
                    log.warning("round %d: suspect so far: %s: %s", server_round, row, why)


def _ends(losses: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """The first and the last losses of a part, up to five each and no more than half of it; of one loss, that one."""
    n = max(1, min(_WINDOW, len(losses) // 2))
    return losses[:n], losses[-n:]


def _tested(metrics: Mapping[str, Any]) -> bool:
    return any(key.startswith("test/recall/") for key in metrics)


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
