"""Outputs about studies: sweep, compare, tune, demo."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.output.base import Number, Output, Part, Place

if TYPE_CHECKING:
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
        folder: Path,
        meaning: str,
        files: Sequence[Path],
        failures: Sequence[str],
        charts: str | None,
        exit_code: int,
    ) -> "StudyFinished":
        """The output for a study's results; ``found`` is None if nothing finished."""
        from fedimb.study.tau_order import order_sentence

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
                "notes": list(found.notes) if found else [],
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
