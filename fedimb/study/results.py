"""What a study found: one `Result` per setting, row and seed, whatever produced it; with nothing dropped.

Tables, statistics, the HTML report and the CSV all read these, so they cannot disagree.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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
    "labels": "labels used",
    "up_bytes": "bytes up",
    "down_bytes": "bytes down",
    "client_seconds": "client-seconds",
    "steps": "local steps",
}
"""Scores and costs of a result, by the name they have in CSVs, with the words they have in tables."""

LOWER_IS_BETTER = frozenset(
    {
        "ece",
        "classwise_ece",
        "total_cost",
        "total_cost_deployed",
        "labels",
        "up_bytes",
        "down_bytes",
        "client_seconds",
        "steps",
    }
)


@dataclass(frozen=True)
class Result:
    """What one row of a comparison achieved with one seed in one setting.

    Attributes:
        setting: name of the setting (``default`` where a study has one only).
        label: row label.
        seed: run seed.
        status: ``diverged``: it ended, but with weights or scores that are not finite; ``failed``: it did not end.
        scores: by the names of `COLUMNS`; recalls are means of the last k evaluated rounds, what needs probabilities
            is of the final round. What does not apply is absent or NaN.
        matrix: final-round confusion matrix [C, C] (or [C, 2, 2] where rows have several labels) int64, or None.
        recall, auroc, auprc: per class [C] float64 of the final round, NaN where undefined; empty where there is none.
        curve: ``(round, {score: value})`` of the rounds that were scored, in order.
        prior: where the class counts came from that the row reads, as ``clear_sum``; ``none`` where it reads none.
        folder: its run folder, or None where it needs none (a reference row).
        sha: `config_sha` of its run, or ``""``.
        error: why there is no result, or ``""``.
    """

    setting: str
    label: str
    seed: int
    status: Status = "finished"
    scores: Mapping[str, float] = field(default_factory=dict)
    matrix: NDArray[np.int64] | None = None
    recall: Sequence[float] = ()
    auroc: Sequence[float] = ()
    auprc: Sequence[float] = ()
    curve: Sequence[tuple[int, Mapping[str, float]]] = ()
    prior: str = "none"
    folder: Path | None = None
    sha: str = ""
    error: str = ""

    def score(self, name: str) -> float:
        """A score, NaN where there is none."""
        return float(self.scores.get(name, math.nan))


@dataclass(frozen=True)
class Setting:
    """One problem of a study: what all its rows have in common.

    Attributes:
        name: as in the study.
        words: what it sets, as on the command line.
        class_names: by class id.
        minority: class ids of the minority classes.
        train_counts: rows of each class [C] int64 that are trained on; of the first seed, as ranks move with the seed.
        counts: rows of each class at each client [K, C] int64, of the first seed; None where it is not known.
    """

    name: str
    words: tuple[str, ...]
    class_names: tuple[str, ...]
    minority: tuple[int, ...]
    train_counts: NDArray[np.int64]
    counts: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class StudyResults:
    """A study as a whole: what was asked, and what came out.

    Attributes:
        name, about: of the study.
        settings: by name, in order.
        labels: row labels in order; the control first among equals (see ``control``).
        control: the row others are tested against, or None.
        results: every run that was asked for, failed ones included.
        command: how to repeat it.
        facts: further lines for people, by heading: versions, machine, tuning, hashes.
    """

    name: str
    about: str
    settings: Mapping[str, Setting]
    labels: tuple[str, ...]
    control: str | None
    results: tuple[Result, ...]
    command: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def of(self, setting: str, label: str) -> list[Result]:
        """The runs of one row in one setting, by seed."""
        own = [r for r in self.results if (r.setting, r.label) == (setting, label)]
        return sorted(own, key=lambda r: r.seed)

    @property
    def tested(self) -> tuple[str, ...]:
        """What statistics are made of: minority and macro recall, and their AULC where any row asked for labels."""
        found = {name for run in self.results for name in run.scores}
        over_labels = [name for name in ("aulc_minority_recall", "aulc_macro_recall") if name in found]
        return ("minority_recall", "macro_recall", *over_labels)

    def scores(self, setting: str, label: str, name: str) -> dict[int, float]:
        """seed -> score of every run of a row; NaN for one without."""
        return {r.seed: r.score(name) if r.status == "finished" else math.nan for r in self.of(setting, label)}


def write_csv(results: Iterable[Result], path: Path) -> Path:
    """One line per result: setting, label, seed, status, every column, the prior's provenance, hash and error."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "label", "seed", "status", *COLUMNS, "prior", "sha", "error"])
        for r in results:
            values = [_cell(r.score(name)) for name in COLUMNS]
            writer.writerow([r.setting, r.label, r.seed, r.status, *values, r.prior, r.sha, r.error])
    return path


def _cell(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() and abs(value) >= 2 else f"{value:.6g}"
