"""Outputs about studies: sweep, compare, tune, demo."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.output.base import Number, Output, Part, Place

if TYPE_CHECKING:
    from fedimb.study.over_sets import OverSets
    from fedimb.study.results import StudyResults
    from fedimb.study.statistics import Statistics


class StudyRun(Part):
    """One row of a study with one seed in one setting.

    Attributes:
        setting, label, seed: which.
        status: "finished", "diverged" or "failed".
        scores: by the names in rows.csv; those that do not apply are absent or null.
        folder: its run folder; null for a computed reference row.
        sha: hash of its configuration.
        identity: hash of all that the run is made of.
        stale: what changed since the run was made, if it is shown nevertheless; else empty.
        suspect: why the result should not be trusted, or empty.
        error: why there is no result.
    """

    setting: str
    label: str
    seed: int
    status: str
    scores: dict[str, Number]
    folder: Place | None
    sha: str
    identity: str
    stale: str
    suspect: str
    error: str


class Mean(Part):
    """One score of one row in one setting, over its seeds.

    Attributes:
        setting, label, score: which.
        seeds: number of runs with the score.
        mean, low, high, median: over these; low and high are the 95 % t interval.
    """

    setting: str
    label: str
    score: str
    seeds: int
    mean: Number
    low: Number
    high: Number
    median: Number


class Difference(Part):
    """One row against the control, on the seeds of both.

    Attributes:
        setting, score, label, control: what is compared.
        seeds, missing: number of pairs, and of pairs without a number on one side (then nothing is claimed).
        effect, low, high: Hodges-Lehmann estimate of row - control, and its interval.
        p, p_holm: Wilcoxon's p, and after Holm over the rows.
        p_equivalent: p of equivalence within the margin, after Holm.
        verdict: "better", "worse" or "": significant after Holm.
        equivalent: whether equivalent within the margin.
    """

    setting: str
    score: str
    label: str
    control: str
    seeds: int
    missing: int
    effect: Number
    low: Number
    high: Number
    p: Number
    p_holm: Number
    p_equivalent: Number
    verdict: str
    equivalent: bool


class BarChosen(Part):
    """The best of the free rows in one setting, chosen on validation rows.

    Attributes:
        setting, min_count: which setting, and the rows of all clients that a class needs to be predicted by a free row.
        label: the row; null if no free row has a score.
        score: score it was chosen by.
        validation: mean score on validation rows, by free row.
        seeds: seeds of that mean.
    """

    setting: str
    min_count: int
    label: str | None
    score: str
    validation: dict[str, Number]
    seeds: list[int]


class AgainstBar(Part):
    """One row against the bar of one setting, on the seeds of both.

    Attributes:
        setting, score, label, bar, min_count: what is compared.
        seeds, missing: number of pairs, and of pairs without a number on one side (then the verdict is "undecided").
        difference, low, high: mean of row - bar with its 95 % t interval over seeds.
        margin: smaller differences do not matter.
        verdict: "beats", "level", "below" or "undecided".
    """

    setting: str
    score: str
    label: str
    bar: str
    min_count: int
    seeds: int
    missing: int
    difference: Number
    low: Number
    high: Number
    margin: float
    verdict: str


class OverDataSets(Part):
    """One row against the bar over data sets; seeds are averaged first, then partitions.

    Attributes:
        score, label, min_count: which row and which bar.
        sets: data sets with a difference.
        difference, low, high: its mean with the 95 % t interval over data sets.
        verdict: "beats", "level", "below" or "undecided".
        mean_rank: mean rank over data sets, 1 is best; null if it has none.
        by_set: the difference in each data set.
    """

    score: str
    label: str
    min_count: int
    sets: int
    difference: Number
    low: Number
    high: Number
    verdict: str
    mean_rank: Number
    by_set: dict[str, Number]


class ContrastTested(Part):
    """A contrast that the study names, over data sets.

    Attributes:
        score, first, second: what is compared; second may be "bar".
        sets: data sets.
        difference, low, high: first - second with its 95 % interval.
        p, p_holm: of no difference, and after Holm over the study's contrasts.
        p_equal, equal_holm: of a difference outside the margin, alike.
        verdict: "beats", "level", "below" or "undecided", after Holm.
        method: "mixed model", or "paired t test over data sets" where that cannot be fitted.
    """

    score: str
    first: str
    second: str
    sets: int
    difference: Number
    low: Number
    high: Number
    p: Number
    p_holm: Number
    p_equal: Number
    equal_holm: Number
    verdict: str
    method: str


class StudyRegistered(Output):
    """What a study fixes before its runs.

    Attributes:
        study: name of the study.
        file: where it is written; to be committed before the runs.
        sha256: hash of all that is registered.
        time: when, ISO 8601 in UTC.
        primary: score of the contrasts.
        contrasts: pairs of rows; the second may be "bar".
        rows, data_sets: which are compared, over which.
    """

    study: str
    file: Place
    sha256: str
    time: str
    primary: str
    contrasts: list[list[str]]
    rows: list[str]
    data_sets: list[str]


class StudyFinished(Output):
    """A sweep or a comparison. The exit code is 1 if a run failed, 3 if one is suspect and its settings refuse that.

    Attributes:
        study: name of the study.
        folder: its folder.
        settings: setting -> its key=value words.
        labels: rows in the order of tables.
        control: the row that others are tested against; null if none is.
        runs: every requested run.
        means: scores over seeds.
        differences: rows against the control.
        bars: the bar of every setting and minimum count; empty in a study without one.
        against_bar: rows against the bar.
        over_data_sets: rows against the bar over data sets; empty if the study names fewer than two.
        contrasts: those that the study names.
        registration: "registered" or "exploratory"; null if nothing is known of it.
        registration_reasons: why it is exploratory.
        notes: limitations of the statistics.
        meaning: one sentence on what the result means; empty if nothing finished.
        tau_order: whether the order of rows changes from tau 1 to their own temperature; empty if none has both.
        files: files written.
        failures: one line per run that did not finish.
        charts: address of the charts in MLflow; null if runs are not tracked.
    """

    study: str
    folder: Place
    settings: dict[str, list[str]]
    labels: list[str]
    control: str | None
    runs: list[StudyRun]
    means: list[Mean]
    differences: list[Difference]
    bars: list[BarChosen]
    against_bar: list[AgainstBar]
    over_data_sets: list[OverDataSets]
    contrasts: list[ContrastTested]
    registration: str | None
    registration_reasons: list[str]
    notes: list[str]
    meaning: str
    tau_order: str
    files: list[Place]
    failures: list[str]
    charts: str | None

    @classmethod
    def from_results(
        cls,
        results: "StudyResults",
        found: "Statistics | None",
        over: "OverSets | None",
        folder: Path,
        meaning: str,
        files: Sequence[Path],
        failures: Sequence[str],
        charts: str | None,
        exit_code: int,
    ) -> "StudyFinished":
        """The output for a study's results; ``found`` is None if nothing finished, ``over`` with fewer than two data
        sets.
        """
        from fedimb.study.tau_order import order_sentence

        registered = results.registered
        return cls.model_validate(
            {
                "exit_code": exit_code,
                "study": results.name,
                "folder": folder,
                "settings": {name: list(setting.words) for name, setting in results.settings.items()},
                "labels": list(results.labels),
                "control": results.control,
                "runs": study_runs(results),
                "means": [
                    {
                        "setting": one.setting, "label": one.label, "score": one.score, "seeds": one.n,
                        "mean": one.mean, "low": one.low, "high": one.high, "median": one.median,
                    }
                    for one in (found.summaries.values() if found else ())
                    if one.values
                ],
                "differences": [
                    {
                        "setting": c.setting, "score": c.score, "label": c.label, "control": c.control,
                        "seeds": c.test.n, "missing": c.test.missing, "effect": c.test.effect, "low": c.test.low,
                        "high": c.test.high, "p": c.test.p, "p_holm": c.p_holm, "p_equivalent": c.tost_holm,
                        "verdict": c.verdict, "equivalent": c.equivalent,
                    }
                    for c in (found.comparisons.values() if found else ())
                ],
                "bars": [asdict(bar) for bar in results.bars],
                "against_bar": [
                    {
                        "setting": a.setting, "score": a.score, "label": a.label, "bar": a.bar,
                        "min_count": a.min_count, "seeds": a.n, "missing": a.missing, "difference": a.difference,
                        "low": a.low, "high": a.high, "margin": a.margin, "verdict": a.said,
                    }
                    for a in (found.against_bar if found else ())
                ],
                "over_data_sets": [
                    {
                        "score": one.score, "label": one.label, "min_count": one.min_count, "sets": one.sets,
                        "difference": one.difference, "low": one.low, "high": one.high, "verdict": one.said,
                        "mean_rank": over.rank(one.score, one.label) if over else math.nan, "by_set": dict(one.by_set),
                    }
                    for one in (over.verdicts if over else ())
                ],
                "contrasts": [
                    {
                        "score": one.score, "first": one.first, "second": one.second, "sets": one.effect.sets,
                        "difference": one.effect.difference, "low": one.effect.low, "high": one.effect.high,
                        "p": one.effect.p, "p_holm": one.p_holm, "p_equal": one.effect.p_equal,
                        "equal_holm": one.equal_holm, "verdict": one.said, "method": one.effect.method,
                    }
                    for one in (over.contrasts if over else ())
                ],
                "registration": None if registered is None else registered.word,
                "registration_reasons": [] if registered is None else list(registered.reasons),
                "notes": [*(found.notes if found else ()), *(over.notes if over else ())],
                "meaning": meaning,
                "tau_order": order_sentence(results),
                "files": list(files),
                "failures": list(failures),
                "charts": charts,
            }
        )  # fmt: skip


def study_runs(results: "StudyResults") -> list[StudyRun]:
    """Every run of a study."""
    return [
        StudyRun.model_validate({name: getattr(r, name) for name in StudyRun.model_fields} | {"scores": dict(r.scores)})
        for r in results.results
    ]


class SweepPlanned(Output):
    """What a sweep would run.

    Attributes:
        folder: the study's folder.
        runs: the settings of each run.
        fold_trainings: trainings without a fold that the runs make beside their own.
    """

    folder: Place
    runs: list[str]
    fold_trainings: int


class StudyPlanned(Output):
    """What a comparison would run.

    Attributes:
        study: name of the study.
        folder: its folder.
        settings, rows, seeds: its settings, row labels and seeds.
        results, runs: number of results, and of runs they come from.
        tuning_runs: about how many tuning runs come before.
        bar_runs: runs that choose the bar, which come before, too.
        fold_trainings: trainings without a fold that the runs make beside their own.
    """

    study: str
    folder: Place
    settings: list[str]
    rows: list[str]
    seeds: list[int]
    results: int
    runs: int
    tuning_runs: int
    bar_runs: int
    fold_trainings: int


class Choice(Part):
    """What tuning chose for a row.

    Attributes:
        setting: the setting; null if the choice is for all.
        row: row label.
        words: the chosen settings.
        lower_quartile: of the score over tuning seeds.
        edges: keys whose chosen value is still the first or last tried.
    """

    setting: str | None
    row: str
    words: list[str]
    lower_quartile: Number
    edges: list[str]


class TuningFinished(Output):
    """Tuning of one or more rows. The exit code is 1 if a run failed.

    Attributes:
        choices: one per row and setting.
        file: all configurations tried.
        failures: one line per run that did not finish.
    """

    choices: list[Choice]
    file: Place
    failures: list[str]


class TuningPlanned(Output):
    """What tuning would try.

    Attributes:
        rows: row label -> configurations, each a list of key=value words.
    """

    rows: dict[str, list[list[str]]]


class DemoFinished(Output):
    """The demo's three comparisons. The exit code is 1 if a run failed.

    Attributes:
        folder: folder of the first one.
        strategies, active_learning, synthetic_samples: the runs of each table.
        failures: one line per run that did not finish.
        files: picture, numbers, report.
    """

    folder: Place
    strategies: list[StudyRun]
    active_learning: list[StudyRun]
    synthetic_samples: list[StudyRun]
    failures: list[str]
    files: list[Place]
