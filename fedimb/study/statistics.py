"""Statistics of a study: every row against the control within a setting, and how rows rank over settings.

Rules: rows are compared on the same seeds; Holm corrects over the rows of one setting and score, but those as
given beside their tuned twins; a run that diverged or failed is counted and shown, loses to a run that finished, and
rules out a claim; ranks are over settings, not seeds.
The tests themselves are in `fedimb.evaluation.significance` and `fedimb.evaluation.ranks`.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedimb.errors import ConfigError, nearest
from fedimb.evaluation.intervals import bca_interval, t_interval
from fedimb.evaluation.ranks import Ranks, friedman
from fedimb.evaluation.significance import Paired, differences, holm, paired, power_note
from fedimb.evaluation.verdict import Verdict, verdict
from fedimb.seeds import Stream, numpy_rng
from fedimb.study.design import as_given
from fedimb.study.results import COLUMNS, LOWER_IS_BETTER, StudyResults

Spread = Literal["t", "bca"]
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Summary:
    """Summary of one score of one row in one setting, over its seeds.

    Attributes:
        setting, label, score: what is summarised.
        values: seed -> score, NaN for a run without one.
        n: number of runs with a score; ``mean``, ``low``, ``high`` (interval over seeds) and ``median`` are over these.
        diverged, failed: seeds of the runs that diverged or failed; the mean does not include them.
        undefined: number of finished runs to which the score does not apply.
    """

    setting: str
    label: str
    score: str
    values: Mapping[int, float]
    n: int
    mean: float
    low: float
    high: float
    median: float
    diverged: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    undefined: int = 0

    @property
    def complete(self) -> bool:
        """Whether every run has a score, so that the mean is over all seeds and not only the lucky ones."""
        return 0 < self.n == len(self.values)

    @property
    def applies(self) -> bool:
        """Whether the score applies to the row: a run has it, or no run finished."""
        return bool(self.values) and (self.n > 0 or self.undefined == 0)


@dataclass(frozen=True)
class Comparison:
    """One row against the control in one setting, on the seeds of both. Effects are row - control.

    Attributes:
        setting, score, label, control: what is compared.
        test: the paired comparison, with unadjusted p-values.
        p_holm: Wilcoxon's p after Holm over the rows of this setting and score.
        tost_holm: p of equivalence within ``test.margin`` after Holm over the same rows; NaN without a margin.
    """

    setting: str
    score: str
    label: str
    control: str
    test: Paired
    p_holm: float
    tost_holm: float

    @property
    def verdict(self) -> Literal["better", "worse", ""]:
        """Significant difference at 1 - level after Holm; none while a run of either side is missing."""
        if self.test.missing or not self.p_holm <= _alpha(self.test.level) or not self.test.effect:
            return ""
        return "better" if (self.test.effect > 0) != (self.score in LOWER_IS_BETTER) else "worse"

    @property
    def equivalent(self) -> bool:
        """Whether equivalent within the margin at 1 - level after Holm; a small significant difference can be both."""
        return not self.test.missing and bool(self.tost_holm <= _alpha(self.test.level))


@dataclass(frozen=True)
class AgainstBar:
    """One row against the bar of one setting, on the seeds of both.

    Attributes:
        setting, score, label: which row.
        bar, min_count: the bar, and the minimum count of the free rows it was chosen from.
        n, missing: pairs of seeds with a number on both sides, and without.
        difference, low, high: mean of row - bar over seeds with its t interval, in the unit of the score.
        margin: smaller differences do not matter.
        said: see `fedimb.evaluation.verdict.verdict`; ``undecided`` while a run of either side is missing.
    """

    setting: str
    score: str
    label: str
    bar: str
    min_count: int
    n: int
    missing: int
    difference: float
    low: float
    high: float
    margin: float
    said: Verdict


@dataclass(frozen=True)
class Statistics:
    """All statistics of a study.

    Attributes:
        study, control: names; control is None where rows are not compared.
        settings, labels, scores: in the order of tables.
        level: confidence level; tests use the significance level 1 - level.
        spread: kind of interval of the means.
        summaries: by (setting, score, label), for every row.
        comparisons: by (setting, score, label), for every row except the control to which the score applies.
        ranks: by score, over the means of settings, for rows present in all of them; a missing run ranks last.
        notes: limitations, in sentences.
        against_bar: every row but the bar against it, by setting, score and minimum count; empty without a bar.
    """

    study: str
    control: str | None
    settings: tuple[str, ...]
    labels: tuple[str, ...]
    scores: tuple[str, ...]
    level: float
    spread: Spread
    summaries: Mapping[Key, Summary]
    comparisons: Mapping[Key, Comparison]
    ranks: Mapping[str, Ranks]
    notes: tuple[str, ...]
    against_bar: tuple[AgainstBar, ...] = ()


def statistics(
    study: StudyResults,
    scores: Sequence[str] | None = None,
    margin: float | None = 0.02,
    level: float = 0.95,
    spread: Spread = "t",
) -> Statistics:
    """Statistics of a study's results.

    Args:
        study: results of the study.
        scores: names of `COLUMNS`; None: `StudyResults.tested`.
        margin: largest difference that counts as equivalent, in units of the score; None: equivalence is not tested.
        level: confidence level of intervals; tests use the significance level 1 - level.
        spread: interval of means over seeds: Student's t, or ``bca`` (see `bca_interval`; too narrow with few seeds).

    Raises:
        ConfigError: a score or a control that does not exist.
        ValueError: two results for one setting, row and seed; a level or margin out of range.
    """
    scores = study.tested if scores is None else scores
    if unknown := [name for name in scores if name not in COLUMNS]:
        raise ConfigError(f"no score '{unknown[0]}'.{nearest(unknown[0], COLUMNS)}")
    if study.control is not None and study.control not in study.labels:
        raise ConfigError(f"control '{study.control}' is not a row of the study.{nearest(study.control, study.labels)}")
    keys = itertools.product(study.settings, scores, study.labels)
    summaries = {key: _summary(study, key, level, spread) for key in keys}
    given = set(map(as_given, study.taken_apart))  # described by their gains: more tests would cost the others power
    comparisons: dict[Key, Comparison] = {}
    notes: dict[str, list[str]] = {}
    if study.control is None:
        notes["no control: rows are not tested against each other; set control: in the study"] = []
    else:
        for setting in study.settings:
            for score in scores:
                if study.control in (bounds := study.bounds(setting)):
                    continue
                left_out = given | bounds
                own = {label: summaries[setting, score, label] for label in study.labels if label not in left_out}
                found = _against(own, study.control, margin, level)
                comparisons |= {(setting, score, c.label): c for c in found}
                pairs = {c.test.n for c in found}
                few = [power_note(n, len(found), _alpha(level)) for n in sorted(pairs - {0} or pairs)]
                for note in (*few, *_unpaired(own, study.control)):
                    if note and found:
                        notes.setdefault(note, []).append(setting)
    return Statistics(
        study.name,
        study.control,
        tuple(study.settings),
        tuple(study.labels),
        tuple(scores),
        level,
        spread,
        summaries,
        comparisons,
        {score: _ranks(study, summaries, score, level) for score in scores},
        tuple(_where(settings, len(study.settings)) + note for note, settings in notes.items()),
        tuple(_against_bars(study, summaries, scores, level)),
    )


def _against_bars(
    study: StudyResults, summaries: Mapping[Key, Summary], scores: Sequence[str], level: float
) -> Iterator[AgainstBar]:
    """Every row of every setting against its bars; a bar at another minimum count is left out where it is the same."""
    for setting in study.settings:
        bars = [bar for bar in study.bars if bar.setting == setting and bar.label in study.labels]
        for score in scores:
            seen: list[Mapping[int, float]] = []
            for bar in bars:
                base = summaries[setting, score, str(bar.label)]
                if not base.applies or base.values in seen:
                    continue
                seen.append(base.values)
                for label in study.labels:
                    row = summaries[setting, score, label]
                    if label != bar.label and row.applies:
                        yield _against_bar(row, base, bar.min_count, study.bar_margin, level)


def _against_bar(row: Summary, base: Summary, min_count: int, margin: float, level: float) -> AgainstBar:
    seeds = [seed for seed in row.values if seed in base.values]
    pairs = np.array([[row.values[seed], base.values[seed]] for seed in seeds], np.float64).reshape(-1, 2)
    finite = pairs[np.isfinite(pairs).all(axis=1)]
    found = differences(finite[:, 0], finite[:, 1])
    difference, low, high = t_interval(found.tolist(), level)
    missing = len(row.values.keys() | base.values.keys()) - len(found)
    sides = (-high, -low) if row.score in LOWER_IS_BETTER else (low, high)
    said: Verdict = "undecided" if missing else verdict(*sides, margin)
    return AgainstBar(
        row.setting,
        row.score,
        row.label,
        base.label,
        min_count,
        len(found),
        missing,
        difference,
        low,
        high,
        margin,
        said,
    )


def _where(settings: Sequence[str], of: int) -> str:
    named = dict.fromkeys(settings)  # no names if a note is about all settings
    return f"{', '.join(named)}: " if 0 < len(named) < of else ""


def _alpha(level: float) -> float:
    return round(1 - level, 12)


def _summary(study: StudyResults, key: Key, level: float, spread: Spread) -> Summary:
    setting, score, label = key
    runs = study.of(setting, label)
    values = study.scores(setting, label, score)
    if len(values) < len(runs):
        raise ValueError(f"setting '{setting}': two results of '{label}' for one seed; pass one per row and seed")
    numbers = [value for value in values.values() if math.isfinite(value)]
    if spread == "bca":
        mean, low, high = bca_interval(numbers, level, rng=numpy_rng(0, Stream.BOOTSTRAP))
    else:
        mean, low, high = t_interval(numbers, level)
    finished = sum(run.status == "finished" for run in runs)
    return Summary(
        setting,
        label,
        score,
        values,
        n=len(numbers),
        mean=mean,
        low=low,
        high=high,
        median=float(np.median(numbers)) if numbers else math.nan,
        diverged=tuple(run.seed for run in runs if run.status == "diverged"),
        failed=tuple(run.seed for run in runs if run.status == "failed"),
        undefined=finished - len(numbers),
    )


def _against(own: Mapping[str, Summary], control: str, margin: float | None, level: float) -> list[Comparison]:
    """Compare every row of one setting and score with the control, with Holm's correction."""
    base = own[control]
    tests: dict[str, Paired] = {}
    for label, row in own.items():
        if label == control or not (row.applies and base.applies):
            continue
        seeds = [seed for seed in row.values if seed in base.values]
        mine, theirs = [row.values[seed] for seed in seeds], [base.values[seed] for seed in seeds]
        tests[label] = paired(mine, theirs, margin, level, base.score in LOWER_IS_BETTER)
    adjusted = holm({label: test.p for label, test in tests.items()})
    equal = holm({label: test.tost_p for label, test in tests.items()})
    return [
        Comparison(base.setting, base.score, label, control, test, adjusted[label], equal[label])
        for label, test in tests.items()
    ]


def _unpaired(own: Mapping[str, Summary], control: str) -> list[str]:
    asked = own[control].values.keys()
    alone = {label: sorted(row.values.keys() ^ asked) for label, row in own.items() if row.values}
    return [
        f"{label} and {control} do not both have seeds {', '.join(map(str, odd))}: not compared there"
        for label, odd in alone.items()
        if odd
    ]


def _ranks(study: StudyResults, summaries: Mapping[Key, Summary], score: str, level: float) -> Ranks:
    """Ranks of the means of rows present in every setting; scores that never apply and empty settings are excluded.

    So are bounds: rows of all classes at once where others are trained by phases.
    """
    bounds = frozenset[str]().union(*map(study.bounds, study.settings))
    ranked = [label for label in study.labels if label not in bounds]
    own = {label: [summaries[setting, score, label] for setting in study.settings] for label in ranked}
    labels = [k for k, row in own.items() if all(s.values for s in row) and any(s.applies for s in row)]
    means = [[s.mean if s.complete else math.nan for s in own[label]] for label in labels]
    table = np.array(means, np.float64).reshape(len(labels), len(study.settings)).T
    return friedman(table[np.isfinite(table).any(axis=1)], labels, _alpha(level), score in LOWER_IS_BETTER)
