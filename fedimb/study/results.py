"""Results of a study: one `Result` per setting, row and seed, including failed ones.

Tables, statistics, the HTML report and the CSV all read these, so they cannot disagree.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fedimb.evaluation.intervals import t_interval
from fedimb.notebook import frame, html_table
from fedimb.plain import JsonObject

if TYPE_CHECKING:
    from pandas import DataFrame

Status = Literal["finished", "diverged", "failed"]

COLUMNS: dict[str, str] = {
    "minority_recall": "minority recall",
    "macro_recall": "macro recall",
    "min_class_recall": "min-class recall",
    "g_mean": "G-mean",
    "macro_f1": "macro F1",
    "mcc": "MCC",
    "accuracy": "accuracy",
    "prior_accuracy": "accuracy under the training prior",
    "ece": "ECE",
    "classwise_ece": "class-wise ECE",
    "auroc": "AUROC, mean over classes",
    "auprc": "AUPRC, mean over classes",
    "worst_domain_minority_recall": "minority recall, worst site or device",
    "worst_domain_macro_recall": "macro recall, worst site or device",
    "worst_client": "worst client",
    "best_client": "best client",
    "weighted_accuracy": "weighted accuracy",
    "total_cost": "total cost",
    "weighted_accuracy_deployed": "weighted accuracy, deployment prior",
    "total_cost_deployed": "total cost, deployment prior",
    "aulc_minority_recall": "minority recall over labels (AULC)",
    "aulc_macro_recall": "macro recall over labels (AULC)",
    "forgetting": "forgetting of earlier phases",
    "labels": "labels used",
    "up_bytes": "bytes up",
    "down_bytes": "bytes down",
    "client_seconds": "client-seconds",
    "steps": "local steps",
    "server_steps": "server steps",
}
"""Scores and costs of a result: name in CSVs -> text in tables."""
_IN_NOTEBOOK = ("minority_recall", "macro_recall", "min_class_recall")

FINAL_ROUND = "final round for all rows"
BOUNDS = "phases, with local steps, which are not equal"
"""Headings of facts that say on which terms rows are compared; tables in plain text have them, too."""
LOWER_IS_BETTER = frozenset(
    {
        "ece",
        "classwise_ece",
        "total_cost",
        "total_cost_deployed",
        "forgetting",
        "labels",
        "up_bytes",
        "down_bytes",
        "client_seconds",
        "steps",
        "server_steps",
    }
)


@dataclass(frozen=True)
class Result:
    """The result of one row of a comparison with one seed in one setting.

    Attributes:
        setting: name of the setting (``default`` if a study has only one).
        label: row label.
        seed: run seed.
        status: ``diverged``: it ended with weights or scores that are not finite; ``failed``: it did not end.
        scores: by the names of `COLUMNS`; recalls are means over the last k evaluated rounds, scores of probabilities
            are of the final round. Scores that do not apply are absent or NaN.
        final: those of the recalls in the final round; empty of a computed row.
        averaged: evaluated rounds behind the means: fewer than k if the last part of its
            training is shorter: a phase, a stage, a cycle, weights that the server replaced.
        phased: whether it was trained by phases, in each of which some classes arrive.
        matrix: final-round confusion matrix [C, C] (or [C, 2, 2] if rows have several labels) int64, or None;
            float64 where it is the mean over sites' own models (`RowResult.tested_matrix`).
        recall, auroc, auprc: per class [C] float64 of the final round, NaN if undefined; empty if not available.
        curve: ``(round, {score: value})`` of the scored rounds, in order.
        prior: source of the class counts that the row uses, e.g. ``clear_sum``; ``none`` if it uses none.
        folder: its run folder, or None (a computed reference row).
        sha: `config_sha` of its run, or ``""``.
        identity: hash of all that the run is made of (`fedimb.rundir.identity`), or ``""``.
        stale: what changed since the run was made, if it is shown nevertheless; else ``""``.
        error: why there is no result, or ``""``.
        row: label of the row in its run folder, which the study may call otherwise; ``""`` without a result there.
        suspect: why the result should not be trusted (`fedimb.serverapp.monitor`), or ``""``.
        refused: whether its run says ``run.on_suspect=fail``.
        tau: strength of its post-hoc logit adjustment, NaN without; ``tau_rule``: how it was found, ``""`` if given.
    """

    setting: str
    label: str
    seed: int
    status: Status = "finished"
    scores: Mapping[str, float] = field(default_factory=dict)
    matrix: NDArray[np.int64] | NDArray[np.float64] | None = None
    recall: Sequence[float] = ()
    auroc: Sequence[float] = ()
    auprc: Sequence[float] = ()
    curve: Sequence[tuple[int, Mapping[str, float]]] = ()
    prior: str = "none"
    folder: Path | None = None
    sha: str = ""
    identity: str = ""
    stale: str = ""
    error: str = ""
    row: str = ""
    suspect: str = ""
    refused: bool = False
    tau: float = math.nan
    tau_rule: str = ""
    final: Mapping[str, float] = field(default_factory=dict)
    averaged: int = 1
    phased: bool = False

    def score(self, name: str) -> float:
        """A score; NaN if absent."""
        return float(self.scores.get(name, math.nan))


@dataclass(frozen=True)
class Setting:
    """One setting (problem) of a study: what all its rows have in common.

    Attributes:
        name: name in the study.
        words: its settings, as on the command line.
        class_names: by class id.
        minority: class ids of the minority classes.
        train_counts: training rows of each class [C] int64, for the first seed (ranks vary with the seed).
        counts: rows of each class at each client [K, C] int64, for the first seed; None if unknown.
        data_set: the data set it is made of; ``""`` if the study names none.
    """

    name: str
    words: tuple[str, ...]
    class_names: tuple[str, ...]
    minority: tuple[int, ...]
    train_counts: NDArray[np.int64]
    counts: NDArray[np.int64] | None = None
    data_set: str = ""


@dataclass(frozen=True)
class Bar:
    """The best of the free rows in one setting, chosen on validation rows (`fedimb.study.bars`).

    Attributes:
        setting: name of the setting.
        min_count: rows of all clients that a class needs to be predicted by a free row.
        label: the row; None if none of them has a score from every seed.
        score: score that it was chosen by.
        validation: mean score on validation rows by free row; NaN for one without.
        seeds: seeds of that mean.
    """

    setting: str
    min_count: int
    label: str | None
    score: str
    validation: Mapping[str, float]
    seeds: tuple[int, ...]

    def to_json(self) -> JsonObject:
        """As JSON values; a mean that is not defined is null."""
        means = {label: mean if math.isfinite(mean) else None for label, mean in self.validation.items()}
        return asdict(self) | {"validation": means, "seeds": list(self.seeds)}

    @staticmethod
    def of_json(stored: JsonObject) -> "Bar":
        """What `to_json` gave."""
        means = {label: math.nan if mean is None else float(mean) for label, mean in stored["validation"].items()}
        return Bar(**(stored | {"validation": means, "seeds": tuple(stored["seeds"])}))


@dataclass(frozen=True)
class TuningCurve:
    """The expected best of k tuning trials of one row (`fedimb.evaluation.budget.expected_best`).

    Attributes:
        setting: its setting, or ``*`` if settings share their choice.
        label: row label.
        score: score that trials are chosen by.
        best: expected best of 1, 2, ... trials, in the unit of the score (where lower is better, the expected least).
    """

    setting: str
    label: str
    score: str
    best: tuple[float, ...]

    def to_json(self) -> JsonObject:
        """As JSON values; what is not finite is null."""
        return asdict(self) | {"best": [value if math.isfinite(value) else None for value in self.best]}

    @staticmethod
    def of_json(stored: JsonObject) -> "TuningCurve":
        """What `to_json` gave; null is NaN."""
        return TuningCurve(**(stored | {"best": tuple(math.nan if v is None else float(v) for v in stored["best"])}))


@dataclass(frozen=True)
class Registered:
    """Whether a study is what was registered before its runs (`fedimb.study.registration`).

    Attributes:
        reasons: why it is exploratory, a short sentence each; empty if it is registered.
        sha: hash of the registration; ``""`` if there is none.
        time: when it was registered, ISO 8601 in UTC; ``""`` if it was not.
    """

    reasons: tuple[str, ...]
    sha: str = ""
    time: str = ""

    @property
    def word(self) -> Literal["registered", "exploratory"]:
        """What its results may be called."""
        return "exploratory" if self.reasons else "registered"

    @property
    def sentence(self) -> str:
        """``registered 2026-11-30 (3f2a91c0)``, or ``exploratory: `` and why."""
        if self.reasons:
            return f"exploratory: {'; '.join(self.reasons)}"
        return f"registered {self.time[:10]} ({self.sha[:8]})"


@dataclass(frozen=True)
class StudyResults:
    """All results of a study.

    Attributes:
        name, about: name and description of the study.
        settings: settings by name, in order.
        labels: row labels in order.
        control: the row that others are tested against, or None.
        results: every requested run, including failed ones.
        command: command that repeats the study.
        facts: further facts for readers, by heading: versions, machine, tuning, hashes.
        bars: the bar of every setting and minimum count; empty in a study without one.
        bar_margin: smallest difference to the bar that matters.
        contrasts: pairs of rows (the second may be ``bar``) that the study names.
        primary: the score that contrasts are about.
        registered: whether these were registered before the runs; None if the study names none.
        taken_apart: the scalar control and the rows whose gain is taken apart (`fedimb.study.gains`); empty without.
        curves: what more trials gave each row in tuning.
    """

    name: str
    about: str
    settings: Mapping[str, Setting]
    labels: tuple[str, ...]
    control: str | None
    results: tuple[Result, ...]
    command: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    bars: tuple[Bar, ...] = ()
    bar_margin: float = 0.01
    contrasts: tuple[tuple[str, str], ...] = ()
    primary: str = "macro_recall"
    registered: Registered | None = None
    taken_apart: tuple[str, ...] = ()
    curves: tuple[TuningCurve, ...] = ()

    @property
    def data_sets(self) -> dict[str, list[str]]:
        """The settings of every data set; empty if the study names none."""
        found: dict[str, list[str]] = {}
        for name, setting in self.settings.items():
            if setting.data_set:
                found.setdefault(setting.data_set, []).append(name)
        return found

    def bounds(self, setting: str) -> frozenset[str]:
        """Rows trained on all classes at once in a setting with rows trained by phases: bounds of these, no rivals."""
        return frozenset(self.steps_by(setting, False)) if self.steps_by(setting, True) else frozenset()

    def steps_by(self, setting: str, phased: bool) -> dict[str, float]:
        """Label -> local steps of its first finished run, of the rows trained by phases, or of those that were not."""
        found: dict[str, float] = {}
        for run in self.results:
            steps = run.score("steps")
            is_one = (run.setting, run.phased, run.status) == (setting, phased, "finished")
            if is_one and (phased or math.isfinite(steps)):  # a computed row without training is no bound
                found.setdefault(run.label, steps)
        return found

    def of(self, setting: str, label: str) -> list[Result]:
        """The runs of one row in one setting, by seed."""
        own = [r for r in self.results if (r.setting, r.label) == (setting, label)]
        return sorted(own, key=lambda r: r.seed)

    @property
    def tested(self) -> tuple[str, ...]:
        """Scores to test: minority and macro recall, their AULC if any row requested labels, and that of contrasts."""
        found = {name for run in self.results for name in run.scores}
        over_labels = [name for name in ("aulc_minority_recall", "aulc_macro_recall") if name in found]
        named = [self.primary] if self.contrasts else []
        return tuple(dict.fromkeys(("minority_recall", "macro_recall", *over_labels, *named)))

    def scores(self, setting: str, label: str, name: str) -> dict[int, float]:
        """seed -> score of every run of a row; NaN for a run without it."""
        return {r.seed: r.score(name) if r.status == "finished" else math.nan for r in self.of(setting, label)}

    def to_frame(self) -> "DataFrame":
        """A pandas frame with the lines of ``rows.csv``: one per setting, row and seed, with every score of `COLUMNS`.

        Raises:
            ConfigError: pandas is not installed.
        """
        texts = ("prior", "sha", "identity", "stale", "suspect", "error")
        return frame(
            [
                {"setting": r.setting, "label": r.label, "seed": r.seed, "status": r.status}
                | {name: r.score(name) for name in COLUMNS}
                | {name: getattr(r, name) for name in texts}
                for r in self.results
            ]
        )

    def _repr_html_(self) -> str:
        """For notebooks: a table per setting, with the means and intervals that the command prints."""
        parts = []
        for name in self.settings:
            rows = [(label, runs) for label in self.labels if (runs := self.of(name, label))]
            caption = self.name if len(self.settings) == 1 else f"{self.name}: {name}"
            head = ["row", "seeds", *(COLUMNS[score] for score in _IN_NOTEBOOK), "MB sent", "client-seconds"]
            parts.append(html_table(caption, head, [_summary(label, runs) for label, runs in rows]))
        notes = "Mean ± half the 95 % t interval over the seeds that finished. ?: a suspect run."
        return "".join(parts) + f"<p>{notes}</p>"


def _summary(label: str, runs: Sequence[Result]) -> list[str]:
    """The cells of a row in a notebook's table."""
    done = [r for r in runs if r.status == "finished"]
    cells = [label + " ?" * any(r.suspect for r in done)]
    cells.append(str(len(runs)) if len(done) == len(runs) else f"{len(done)}/{len(runs)}")
    for name in _IN_NOTEBOOK:
        mean, low, high = t_interval([r.score(name) for r in done])
        spread = "" if math.isnan(high) else f" ± {(high - low) / 2:.3f}"
        cells.append("n/a" if math.isnan(mean) else f"{mean:.3f}{spread}")
    for values in ([(r.score("up_bytes") + r.score("down_bytes")) / 1e6 for r in done], _seconds(done)):
        mean = t_interval(values)[0]
        cells.append("n/a" if math.isnan(mean) else f"{mean:.3g}")
    return cells


def _seconds(runs: Sequence[Result]) -> list[float]:
    return [r.score("client_seconds") for r in runs]


def as_shown(study: StudyResults) -> StudyResults:
    """The same results as readers may compare them: by the same rounds, bounds named, and stale rows called so."""
    return with_stale_named(with_bounds_named(with_equal_rounds(study)))


def with_bounds_named(study: StudyResults) -> StudyResults:
    """The same results; a fact names the rows trained by phases and those beside them that were not, with their steps.

    A row that sees all classes at once trains on more rows in more local steps: a bound of the others, not a rival.
    A control that is nothing else in all of its settings is none.
    """
    said = []
    for name in study.settings:
        phased, at_once = (_with_steps(study.steps_by(name, by)) for by in (True, False))
        if phased and at_once:
            said.append(f"in {name} {phased} by phases; all classes at once, bounds of these and no rivals: {at_once}")
    if not said:
        return study
    control, own = study.control, [name for name in study.settings if study.of(name, str(study.control))]
    if control is not None and own and all(control in study.bounds(name) for name in own):
        said.append(f"{control} is therefore no control: rows are not tested against it")
        control = None
    return replace(study, control=control, facts={**study.facts, BOUNDS: ". ".join(said)})


def _with_steps(steps: Mapping[str, float]) -> str:
    """Labels with the local steps of their first runs: ``fedavg (1,200)``."""
    return ", ".join(f"{label} ({taken:,.0f})" if math.isfinite(taken) else label for label, taken in steps.items())


def with_equal_rounds(study: StudyResults) -> StudyResults:
    """The same results, by the final round in each setting whose rows are not means over equally many rounds.

    A server that replaces the weights at the end (a re-trained head, discriminant analysis) leaves one round of its
    model, a short last phase or stage a few: beside a mean over rounds in which others still rise, it would seem better
    than it is. A fact names the rows.
    """
    counts: dict[str, set[int]] = {}
    for result in study.results:
        if result.status == "finished" and result.final:
            counts.setdefault(result.setting, set()).add(result.averaged)
    uneven = {setting: min(found) for setting, found in counts.items() if len(found) > 1}
    if not uneven:
        return study
    results = tuple(
        replace(r, scores={**r.scores, **r.final}) if r.setting in uneven and r.averaged > 1 else r
        for r in study.results
    )
    fewest = sorted({r.label for r in study.results if r.final and r.averaged == uneven.get(r.setting)})
    where = ", ".join(name for name in study.settings if name in uneven)
    said = f"in {where}: {', '.join(fewest)} leave fewer rounds of their model to average than the others"
    return replace(study, results=results, facts={**study.facts, FINAL_ROUND: said})


def with_stale_named(study: StudyResults) -> StudyResults:
    """The same results, where a row with a stale run is called ``<row> (stale)`` everywhere, and a fact says why."""
    why: dict[str, list[str]] = {}
    for result in study.results:
        if result.stale:
            why.setdefault(result.label, []).append(result.stale)
    if not why:
        return study

    def named(label: str) -> str:
        return f"{label} (stale)" if label in why else label

    reasons = {label: "; ".join(dict.fromkeys(part for text in texts for part in text.split("; ")))
               for label, texts in why.items()}  # fmt: skip
    return replace(
        study,
        labels=tuple(map(named, study.labels)),
        control=None if study.control is None else named(study.control),
        results=tuple(replace(result, label=named(result.label)) for result in study.results),
        bars=tuple(replace(bar, label=None if bar.label is None else named(bar.label)) for bar in study.bars),
        contrasts=tuple((named(first), named(second)) for first, second in study.contrasts),
        taken_apart=tuple(map(named, study.taken_apart)),
        curves=tuple(replace(curve, label=named(curve.label)) for curve in study.curves),
        facts={**study.facts, "stale": ". ".join(f"{label}: {text}" for label, text in reasons.items())},
    )


def write_csv(results: Iterable[Result], path: Path) -> Path:
    """Write one line per result: setting, label, seed, status, all columns, provenance of the prior, hashes, why it is
    stale or suspect, error.
    """
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        last = ["prior", "sha", "identity", "stale", "suspect", "error"]
        writer.writerow(["setting", "label", "seed", "status", *COLUMNS, *last])
        for r in results:
            values = [_cell(r.score(name)) for name in COLUMNS]
            texts = [r.prior, r.sha, r.identity, r.stale, r.suspect, r.error]
            writer.writerow([r.setting, r.label, r.seed, r.status, *values, *texts])
    return path


def _cell(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() and abs(value) >= 2 else f"{value:.6g}"
