"""Recall by phase, where classes arrive in phases, and what is forgotten of earlier ones.

Chaudhry et al., "Riemannian Walk for Incremental Learning: Understanding Forgetting and Intransigence", ECCV 2018:
with a_{k,j} the score on phase j's classes after phase k, the forgetting of phase j after the last phase P is
f_j = max over l < P of a_{l,j}, minus a_{P,j}, for j < P, and their mean is the run's. The score here is the mean
recall of the phase's classes among all classes, also those to come: nobody tells the model which phase a row is of.
Forgetting is negative where later phases have helped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fedimb.evaluation.confusion import hits_and_support
from fedimb.evaluation.ratios import Floats, mean_defined, ratio

RECALL_OF = "test/phase_recall/"
"""Prefix of a metric, followed by the number of the phase, 1-based: mean recall of its classes."""

FORGETTING = "forgetting"
"""Name of the summary score: mean forgetting of the phases before the last."""


def phase_recalls(matrix: ArrayLike, phases: Sequence[Sequence[int]]) -> dict[str, float]:
    """Mean recall of each phase's classes that have test rows, by metric name; NaN if none has.

    Args:
        matrix: counts [C, C], rows = true class.
        phases: class ids of each.

    Example:
        >>> phase_recalls([[3, 1, 0], [0, 4, 0], [1, 1, 0]], [[0, 1], [2]])
        {'test/phase_recall/1': 0.875, 'test/phase_recall/2': 0.0}
    """
    recall = ratio(*hits_and_support(np.asarray(matrix)))
    return {
        f"{RECALL_OF}{number}": float(mean_defined(recall[list(classes)]))
        for number, classes in enumerate(phases, start=1)
    }


def recall_after(lines: Sequence[Mapping[str, Any]], of_phase: str, phases: int) -> Floats | None:
    """[P, P]: recall of phase j's classes (columns) after phase k (rows), from the metrics of a run's rounds, in order.

    Args:
        lines: metrics by name; a value of None is undefined.
        of_phase: the metric that says which phase a round is of. A line without it is of the phase of the one before.
        phases: P.

    Returns:
        NaN where undefined; None if some phase was not scored.
    """
    found: dict[int, list[float]] = {}
    phase = 0
    for line in lines:
        phase = int(line.get(of_phase) or phase)
        scored = [line.get(f"{RECALL_OF}{number}", ...) for number in range(1, phases + 1)]
        if phase and ... not in scored:
            found[phase] = [np.nan if value is None else float(value) for value in scored]
    if sorted(found) != list(range(1, phases + 1)):
        return None
    return np.array([found[number] for number in range(1, phases + 1)], np.float64)


def forgetting(recalls: ArrayLike) -> Floats:
    """Forgetting of every phase but the last, [P - 1] float64; NaN where a recall behind it is undefined.

    Args:
        recalls: [P, P], of `recall_after`.

    Example:
        >>> forgetting([[0.9, 0.0, 0.0], [0.5, 0.8, 0.1], [0.25, 0.9, 0.7]]).round(2).tolist()
        [0.65, -0.1]
    """
    table = np.asarray(recalls, np.float64)
    lost: Floats = table[:-1, :-1].max(axis=0) - table[-1, :-1]
    return lost
