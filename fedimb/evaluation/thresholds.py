"""From class scores to a decision: the highest score, an abstention below a limit, or one threshold per class.

Thresholds are chosen on labelled rows that are neither trained on nor tested on; `choose` says what they achieve there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.evaluation.intervals import wilson

ABSTAINED = -1
"""The class id of a row for which no class is predicted."""

_RARE = 0.01  # share of the rows below which a class's thresholds are tried from 0.05 on
_STEP = 0.01

Scores = NDArray[np.floating]


@dataclass(frozen=True)
class DecisionRule:
    """How a prediction follows from scores. Without arguments: the class with the highest score, or, where rows have
    several labels, every class above .5.

    Args:
        abstain_below: with one label per row, predict no class if the highest score is below this.
        thresholds: class id -> lowest score at which the class is predicted.

    Raises:
        ValueError: both are given, or a number is out of range.
    """

    abstain_below: float | None = None
    thresholds: dict[int, float] | None = None

    def __post_init__(self) -> None:
        if self.abstain_below is not None and self.thresholds:
            raise ValueError("abstain_below and thresholds are two rules for one decision: give one of them")
        if self.abstain_below is not None and not 0 < self.abstain_below <= 1:
            raise ValueError(f"abstain_below is {self.abstain_below}; give a number above 0 and at most 1")
        for value in (self.thresholds or {}).values():
            if not 0 <= value <= 1:
                raise ValueError(f"a threshold is {value}; give a number from 0 to 1")

    @property
    def may_abstain(self) -> bool:
        """Whether a row of one label may end without a class."""
        return self.abstain_below is not None or bool(self.thresholds)


def decide(scores: Scores, rule: DecisionRule) -> NDArray[np.int64]:
    """Class ids [n] from scores [n, C], one label per row; `ABSTAINED` where no class is predicted.

    With thresholds: of the classes that reach theirs, the one with the largest ratio of score and threshold; if none
    does, the highest of the classes without a threshold; if every class has one, none.

    Example:
        >>> scores = np.array([[0.7, 0.3], [0.95, 0.05]])
        >>> decide(scores, DecisionRule(thresholds={1: 0.2})).tolist()
        [1, 0]
        >>> decide(scores, DecisionRule(abstain_below=0.9)).tolist()
        [-1, 0]
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not rule.thresholds:
        best = scores.argmax(axis=1)
        if rule.abstain_below is not None:
            best[scores.max(axis=1) < rule.abstain_below] = ABSTAINED
        return best.astype(np.int64)
    limits = np.full(scores.shape[1], np.nan)
    limits[list(rule.thresholds)] = list(rule.thresholds.values())
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(scores >= limits, scores / np.maximum(limits, 1e-300), -np.inf)  # NaN: no threshold
    free = np.where(np.isnan(limits), scores, -np.inf)
    other = np.where(np.isnan(limits).any(), free.argmax(axis=1), ABSTAINED)
    return np.where(np.isfinite(ratio).any(axis=1), ratio.argmax(axis=1), other).astype(np.int64)


def decide_labels(scores: Scores, rule: DecisionRule) -> NDArray[np.bool_]:
    """[n, C] bool from probabilities [n, C], several labels per row: at least the class's threshold, or above .5.

    Example:
        >>> decide_labels(np.array([[0.5, 0.3]]), DecisionRule(thresholds={1: 0.3})).tolist()
        [[False, True]]
    """
    said: NDArray[np.bool_] = np.asarray(scores) > 0.5
    for c, limit in (rule.thresholds or {}).items():
        said[:, c] = np.asarray(scores, dtype=np.float64)[:, c] >= limit
    return said


def recall_threshold(scores: Scores, positive: NDArray[np.bool_], recall: float) -> float:
    """The highest threshold at which at least ``recall`` of the positive rows are found.

    Args:
        scores: [n], of one class.
        positive: [n], whether a row has the class; at least one has.
        recall: in (0, 1].

    Example:
        >>> recall_threshold(np.array([0.9, 0.6, 0.4, 0.2]), np.array([True, True, True, False]), 0.6)
        0.6
    """
    held = np.sort(np.asarray(scores, dtype=np.float64)[positive])[::-1]
    # 0.6 * 5 is a little more than 3 in binary, which would ask for a fourth row.
    needed = max(1, math.ceil(recall * len(held) - 1e-9))
    return float(held[needed - 1])


def f1_threshold(scores: Scores, positive: NDArray[np.bool_]) -> float:
    """The threshold on a grid of steps of .01 with the highest F1, the lowest of equals.

    The grid begins at .1, or at .05 for a class that less than 1 % of the rows have, and ends at .95.
    """
    scores = np.asarray(scores, dtype=np.float64)
    start = 0.05 if positive.mean() < _RARE else 0.1
    grid = np.round(np.arange(start, 0.95 + _STEP / 2, _STEP), 2)
    found = np.sort(scores[positive])
    every = np.sort(scores)
    hits = len(found) - np.searchsorted(found, grid)
    called = len(every) - np.searchsorted(every, grid)
    return float(grid[np.argmax(2 * hits / np.maximum(1, called + len(found)))])


@dataclass(frozen=True)
class ChosenThreshold:
    """One class's threshold, and what the whole rule achieves for the class on the rows it was chosen on.

    Attributes:
        class_id, value: the class and its threshold.
        recall: found rows of the class / rows of the class.
        interval: Wilson's 95 % interval of the recall.
        precision: found rows of the class / rows predicted as the class; NaN if there are none.
        positives: rows of the class.
    """

    class_id: int
    value: float
    recall: float
    interval: tuple[float, float]
    precision: float
    positives: int


@dataclass(frozen=True)
class ChosenRule:
    """Thresholds chosen on labelled rows.

    Attributes:
        rule: with the thresholds.
        achieved: one entry per threshold.
        aim: what was asked for, as in "recall 0.9" or "best F1".
        chosen_on: where the rows come from.
        rows: their number.
        calibration: of the scores; the thresholds mean nothing for those of another. "" if there is only one.
    """

    rule: DecisionRule
    achieved: tuple[ChosenThreshold, ...]
    aim: str
    chosen_on: str
    rows: int
    calibration: str = ""


def choose(
    scores: Scores, labels: NDArray[np.integer], classes: Sequence[int], recall: float | None, chosen_on: str
) -> ChosenRule:
    """Choose a threshold for each of ``classes``.

    Args:
        scores: [n, C].
        labels: true class ids [n], or, if rows have several labels, [n, C] of 0 and 1; another value is an unknown one,
            and a class has the rows of which it is known.
        classes: class ids, each with at least one row.
        recall: aimed at, in (0, 1]; None: the best F1.
        chosen_on: see `ChosenRule`.

    Raises:
        ValueError: a class has no row, or ``recall`` is not in (0, 1].
    """
    if recall is not None and not 0 < recall <= 1:
        raise ValueError(f"recall is {recall}; give a number above 0 and at most 1")
    several = labels.ndim == 2
    thresholds = {}
    for c in classes:
        known = _known_rows(labels, c)
        own, positive = scores[known, c], labels[known, c] == 1 if several else labels == c
        if not positive.any():
            raise ValueError(f"class {c} has no row to choose a threshold on")
        thresholds[c] = f1_threshold(own, positive) if recall is None else recall_threshold(own, positive, recall)
    rule = DecisionRule(thresholds=thresholds)
    said = decide_labels(scores, rule) if several else decide(scores, rule)
    achieved = []
    for c in classes:
        known = _known_rows(labels, c)
        positive, called = (labels[known, c] == 1, said[known, c]) if several else (labels == c, said == c)
        hits, support = int((positive & called).sum()), int(positive.sum())
        low, high = wilson([hits], [support])
        precision = hits / called.sum() if called.any() else math.nan
        interval = (float(low[0]), float(high[0]))
        achieved.append(ChosenThreshold(c, thresholds[c], hits / support, interval, float(precision), support))
    aim = "best F1" if recall is None else f"recall {recall:g}"
    return ChosenRule(rule, tuple(achieved), aim, chosen_on, len(labels))


def _known_rows(labels: NDArray[np.integer], c: int) -> NDArray[np.bool_]:
    """[n] rows of which it is known whether they have class ``c``."""
    return np.isin(labels[:, c], (0, 1)) if labels.ndim == 2 else np.ones(len(labels), np.bool_)
