"""What a row gains over plain FedAvg, in parts: recipe, tuning FedAvg could have had too, tuning beyond it, luck.

A method is usually shown tuned beside a FedAvg that is not. Here each row stands twice, tuned and as given (with the
study's own settings), and so does the scalar control: FedAvg that spends the same number of trials on its learning rate
and local steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedimb.evaluation.intervals import t_interval
from fedimb.study.design import as_given
from fedimb.study.results import LOWER_IS_BETTER, StudyResults


@dataclass(frozen=True)
class Part:
    """A mean over seeds with its t interval; NaN bounds with fewer than two seeds."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """A row's gain over the untuned control in one setting, in parts that sum to it. Positive is better.

    Attributes:
        setting, label, control, score: what is taken apart.
        seeds: the seeds on which all four runs have a score.
        gain: the tuned row against the control as given: what a table of a tuned method beside plain FedAvg shows.
        recipe: the row as given against the control as given.
        scalars: what the same number of trials gives the control.
        knobs: what tuning gives the row beyond that; below 0 if it profits less from tuning than the control.
        remaining: the tuned row against the tuned control, recipe + knobs: the gain at equal tuning.
        luck: how far the best seed's remaining gain lies above the mean: what showing one seed could have added.
    """

    setting: str
    label: str
    control: str
    score: str
    seeds: tuple[int, ...]
    gain: Part
    recipe: Part
    scalars: Part
    knobs: Part
    remaining: Part
    luck: float


def take_apart(
    study: StudyResults, rows: Sequence[str], control: str, score: str = "macro_recall", level: float = 0.95
) -> list[Gain]:
    """Take every row's gain apart, by setting and row.

    Args:
        study: results that hold each row and the control, tuned and as given (`as_given`).
        rows: labels.
        control: label of the scalar control.
        score: name of a score.
        level: confidence level of the intervals over seeds.

    Raises:
        KeyError: a label that the study lacks.
    """
    needed = [name for label in (control, *rows) for name in (label, as_given(label))]
    if absent := [name for name in needed if name not in study.labels]:
        raise KeyError(f"the study has no row '{absent[0]}'")
    return [_gain(study, setting, label, control, score, level) for setting in study.settings for label in rows]


def _gain(study: StudyResults, setting: str, label: str, control: str, score: str, level: float) -> Gain:
    names = (label, as_given(label), control, as_given(control))
    found = [study.scores(setting, name, score) for name in names]
    seeds = tuple(s for s in sorted(set.intersection(*map(set, found))) if all(np.isfinite(one[s]) for one in found))
    sign = -1.0 if score in LOWER_IS_BETTER else 1.0
    row, row_given, plain, plain_given = (sign * np.array([one[s] for s in seeds]) for one in found)

    def part(values: np.ndarray) -> Part:
        return Part(*t_interval(values.tolist(), level))

    remaining = row - plain
    return Gain(
        setting,
        label,
        control,
        score,
        seeds,
        gain=part(row - plain_given),
        recipe=part(row_given - plain_given),
        scalars=part(plain - plain_given),
        knobs=part((row - row_given) - (plain - plain_given)),
        remaining=part(remaining),
        luck=float(remaining.max() - remaining.mean()) if seeds else float("nan"),
    )
