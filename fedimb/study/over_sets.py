"""Statistics over data sets: what holds over the seeds of one data set says little about the next.

Seeds are averaged first, then partitions within a data set: a data set counts once, by its mean difference to the bar.
Mean ranks with Friedman's test and the critical difference describe; claims are the few contrasts that a study names
(and registers before its runs), by a mixed model with Holm's correction over them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedimb.evaluation.intervals import t_interval
from fedimb.evaluation.mixed_model import Effect, mixed_contrasts
from fedimb.evaluation.ranks import Ranks, friedman
from fedimb.evaluation.significance import holm, smallest_p
from fedimb.evaluation.verdict import Verdict, verdict
from fedimb.study.design import BAR
from fedimb.study.references import FREE, MIN_COUNTS, at_min_count
from fedimb.study.results import LOWER_IS_BETTER, StudyResults
from fedimb.study.statistics import Statistics, Summary

ADVISED = 12
"""Data sets from which on a rank test has power after Holm's correction."""


@dataclass(frozen=True)
class SetVerdict:
    """One row against the bar over data sets.

    Attributes:
        score, label, min_count: which row, and which bar.
        by_set: mean difference to the bar in each data set; NaN where a run of the row or of the bar is missing.
        sets: data sets with a difference.
        difference, low, high: its mean over data sets with the t interval, in the unit of the score.
        said: see `fedimb.evaluation.verdict.verdict`; ``undecided`` while a data set is missing.
    """

    score: str
    label: str
    min_count: int
    by_set: Mapping[str, float]
    sets: int
    difference: float
    low: float
    high: float
    said: Verdict


@dataclass(frozen=True)
class Contrast:
    """A contrast that the study names, over data sets.

    Attributes:
        score, first, second: what is compared; ``second`` may be ``bar``.
        effect: first - second, with unadjusted p-values.
        p_holm: p of no difference after Holm over the study's contrasts.
        equal_holm: p of a difference outside the margin, alike.
        said: ``beats`` and ``below`` after Holm at 1 - level; ``level`` after Holm at half of that, as two one-sided
            tests are the 95 % interval.
    """

    score: str
    first: str
    second: str
    effect: Effect
    p_holm: float
    equal_holm: float
    said: Verdict


@dataclass(frozen=True)
class OverSets:
    """All statistics over data sets.

    Attributes:
        data_sets: names, in order.
        verdicts: every row against the bar, by score and minimum count.
        ranks: mean ranks over data sets by score.
        contrasts: those that the study names.
        notes: limitations, in sentences.
    """

    data_sets: tuple[str, ...]
    verdicts: tuple[SetVerdict, ...]
    ranks: Mapping[str, Ranks]
    contrasts: tuple[Contrast, ...]
    notes: tuple[str, ...]

    def rank(self, score: str, label: str) -> float:
        """A row's mean rank, 1 is best; NaN if it has none."""
        ranks = self.ranks[score]
        return float(ranks.mean_ranks[ranks.methods.index(label)]) if label in ranks.methods else math.nan


def over_sets(study: StudyResults, found: Statistics) -> OverSets | None:
    """Statistics over a study's data sets; None if it names fewer than two.

    Args:
        study: its results.
        found: its statistics within settings.

    Raises:
        ConfigError: statsmodels is not installed.
    """
    sets = study.data_sets
    if len(sets) < 2:
        return None
    notes = []
    if len(sets) < ADVISED:
        over = f", times {len(study.contrasts)} contrasts after Holm" if len(study.contrasts) > 1 else ""
        least = f"{smallest_p(len(sets)):.2g}".removeprefix("0")
        notes.append(
            f"{len(sets)} data sets: the least p that Wilcoxon's test over them can reach is {least}{over}; "
            f"take {ADVISED} or more for claims"
        )
    verdicts = [
        one
        for score in found.scores
        for count in dict.fromkeys(bar.min_count for bar in study.bars)
        for one in _verdicts(study, found, score, count)
    ]
    contrasts, said = _contrasts(study, found)
    ranks = {score: _ranks(study, found, score) for score in found.scores}
    return OverSets(tuple(sets), tuple(verdicts), ranks, tuple(contrasts), (*notes, *said))


def _bar_of(study: StudyResults, setting: str, count: int) -> str | None:
    return next((bar.label for bar in study.bars if (bar.setting, bar.min_count) == (setting, count)), None)


def _verdicts(study: StudyResults, found: Statistics, score: str, count: int) -> list[SetVerdict]:
    labels = _labels_at(study, count)
    bars = {setting: _bar_of(study, setting, count) for setting in study.settings}
    verdicts = []
    for label in labels:
        by_set = {
            name: _mean([_to_bar(found, setting, score, label, bars[setting]) for setting in own])
            for name, own in study.data_sets.items()
        }
        known = [value for value in by_set.values() if math.isfinite(value)]
        if not known:
            continue
        difference, low, high = t_interval(known, found.level)
        sides = (-high, -low) if score in LOWER_IS_BETTER else (low, high)
        said: Verdict = "undecided" if len(known) < len(by_set) else verdict(*sides, study.bar_margin)
        verdicts.append(SetVerdict(score, label, count, by_set, len(known), difference, low, high, said))
    return verdicts


def _labels_at(study: StudyResults, count: int) -> list[str]:
    """All rows but the free ones at another minimum count."""
    others = {at_min_count(label, other) for label in FREE for other in MIN_COUNTS if other != count}
    return [label for label in study.labels if label not in others]


def _to_bar(found: Statistics, setting: str, score: str, label: str, bar: str | None) -> float:
    """Mean over seeds of row - bar; NaN if a run of either is missing."""
    if bar is None:
        return math.nan
    return _of(found.summaries[setting, score, label]) - _of(found.summaries[setting, score, bar])


def _of(summary: Summary) -> float:
    return summary.mean if summary.complete else math.nan


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _ranks(study: StudyResults, found: Statistics, score: str) -> Ranks:
    """Ranks of the data sets' means, for rows that have the score; a row with a missing run ranks last there."""
    labels = [
        label
        for label in _labels_at(study, study.bars[0].min_count if study.bars else MIN_COUNTS[0])
        if any(found.summaries[setting, score, label].n for setting in study.settings)
    ]
    table = [
        [_mean([_of(found.summaries[setting, score, label]) for setting in own]) for label in labels]
        for own in study.data_sets.values()
    ]
    scores = np.array(table, np.float64).reshape(len(study.data_sets), len(labels))
    return friedman(scores, labels, round(1 - found.level, 12), score in LOWER_IS_BETTER)


def _contrasts(study: StudyResults, found: Statistics) -> tuple[list[Contrast], list[str]]:
    score, alpha = study.primary, round(1 - found.level, 12)
    notes: list[str] = []
    effects: dict[tuple[str, str], Effect] = {}
    frame = {row: _by_setting(study, found, row) for pair in study.contrasts for row in pair}
    whole = {row: values for row, values in frame.items() if all(map(math.isfinite, values.values()))}
    if left_out := [row for row in frame if row not in whole]:
        notes.append(f"nothing is claimed of {', '.join(left_out)}, because runs are missing")
    pairs = [pair for pair in study.contrasts if all(row in whole for row in pair)]
    if pairs:
        cells = [(s, where, row) for row in whole for s, own in study.data_sets.items() for where in own]
        values = [whole[row][where] for _, where, row in cells]
        sets, settings, rows = (list(column) for column in zip(*cells, strict=True))
        made = mixed_contrasts(values, sets, settings, rows, pairs, study.bar_margin, found.level)
        effects = dict(zip(pairs, made, strict=True))
    nan = math.nan
    none = Effect(0, nan, nan, nan, nan, nan, "")
    keyed = {f"{first} {second}": (first, second) for first, second in study.contrasts}
    p_holm = holm({key: effects.get(pair, none).p for key, pair in keyed.items()})
    equal = holm({key: effects.get(pair, none).p_equal for key, pair in keyed.items()})
    contrasts = []
    for key, pair in keyed.items():
        effect = effects.get(pair, none)
        said = _said(effect, p_holm[key], equal[key], alpha, score in LOWER_IS_BETTER)
        contrasts.append(Contrast(score, *pair, effect, p_holm[key], equal[key], said))
    if others := {one.effect.method for one in contrasts} - {"", "mixed model"}:
        notes.append(f"where no mixed model could be fitted, contrasts are by {', '.join(sorted(others))}")
    return contrasts, notes


def _said(effect: Effect, p_holm: float, equal_holm: float, alpha: float, lower_is_better: bool) -> Verdict:
    """As `fedimb.evaluation.verdict.verdict`, with Holm's correction."""
    if equal_holm <= alpha / 2:
        return "level"
    if not p_holm <= alpha or not effect.difference:
        return "undecided"
    return "beats" if (effect.difference > 0) != lower_is_better else "below"


def _by_setting(study: StudyResults, found: Statistics, row: str) -> dict[str, float]:
    """Mean over seeds in every setting that has a data set; of ``bar``, that setting's bar."""
    values = {}
    for own in study.data_sets.values():
        for setting in own:
            bar = _bar_of(study, setting, study.bars[0].min_count) if study.bars else None
            label = bar if row == BAR else row
            values[setting] = math.nan if label is None else _of(found.summaries[setting, study.primary, label])
    return values
