"""Two models tested on the same rows: per class, in the mean, and over several seeds.

Rules: the test rows must be the same, by row number and by content; Holm corrects over the classes, for AUROC and for
recall separately; means over classes are one test each, not corrected. Seeds are never pooled as rows: each seed's two
models are tested on that seed's rows, and the differences are then tested over seeds as in `fedimb.study.statistics`.
The tests themselves are in `fedimb.evaluation.delong` and `fedimb.evaluation.paired_recall`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fedimb.errors import ConfigError, DataError, FedimbError, nearest
from fedimb.evaluation.delong import AurocTest, delong
from fedimb.evaluation.paired_recall import RecallTest, RecallTests, recall_tests
from fedimb.evaluation.significance import Paired, holm, paired, power_note
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.rundir.row_scores import RowScores
from fedimb.rundir.stored import read_federation
from fedimb.seeds import Stream, numpy_rng

RESAMPLES = 2000
FEW_ROWS = 10
"""With fewer rows (or patients) of a class, nothing is claimed of its AUROC: DeLong's p errs too often there."""


@dataclass(frozen=True)
class ScoredRow:
    """A finished run's row (calibration) with its score of every test row.

    Attributes:
        label: how it is called in the comparison.
        folder: its run folder.
        seed: run seed.
        scores: its scores.
        minority: ids of the minority classes.
        suspect: why the row should not be trusted; empty if nothing was seen.
    """

    label: str
    folder: Path
    seed: int
    scores: RowScores
    minority: tuple[int, ...]
    suspect: str = ""


@dataclass(frozen=True)
class ModelPair:
    """Model A against model B on the same test rows; differences are A - B.

    Attributes:
        a, b: the two rows.
        rows, patients: test rows, and patients among them; patients is 0 if every row counts on its own.
        minority: ids of the minority classes, empty if the two runs do not agree on them.
        auroc: DeLong's test of each class, one against the rest.
        auroc_holm: its p after Holm over the classes; NaN, and counted by Holm, with fewer than `FEW_ROWS` rows.
        recall: McNemar's test and the bootstrap of each class, of the means and of all rows.
        recall_holm: McNemar's p of each class after Holm over the classes.
        notes: limitations, in sentences.
        level: confidence level; tests use the significance level 1 - level.
    """

    a: ScoredRow
    b: ScoredRow
    rows: int
    patients: int
    minority: tuple[int, ...]
    auroc: tuple[AurocTest, ...]
    auroc_holm: tuple[float, ...]
    recall: RecallTests
    recall_holm: tuple[float, ...]
    notes: tuple[str, ...]
    level: float

    @property
    def class_names(self) -> tuple[str, ...]:
        """By class id."""
        return self.a.scores.class_names

    @property
    def alpha(self) -> float:
        """Significance level."""
        return round(1 - self.level, 12)


@dataclass(frozen=True)
class AcrossSeeds:
    """One number of two models over seeds, tested as rows of a study are.

    Attributes:
        test: effect, interval and Wilcoxon's test over the seeds' differences.
        p: its p, for a class after Holm over the classes.
    """

    test: Paired
    p: float


@dataclass(frozen=True)
class SeedPairs:
    """The same two rows of a study over several seeds.

    Attributes:
        setting: the study's setting.
        a, b: labels of the two rows.
        pairs: seed -> the two models of that seed on that seed's test rows.
        auroc, recall: per class, over seeds.
        macro, minority: mean recalls, over seeds.
        missing: what was left out and why, by seed.
        notes: limitations, in sentences.
        level: confidence level.
    """

    setting: str
    a: str
    b: str
    pairs: Mapping[int, ModelPair]
    auroc: tuple[AcrossSeeds, ...]
    recall: tuple[AcrossSeeds, ...]
    macro: AcrossSeeds
    minority: AcrossSeeds
    missing: Mapping[int, str]
    notes: tuple[str, ...]
    level: float


def read_row(folder: Path, label: str | None = None, name: str | None = None) -> ScoredRow:
    """Read one row of a finished run with its scores of every test row.

    Args:
        folder: the run folder.
        label: the row's label; None: the run's first row.
        name: how to call it; None: its label.

    Raises:
        FedimbError: not finished, no row of this label, scored at the clients, or without scores of its test rows.
    """
    result = RunResult.read(folder)
    found = {row.label: row for row in result.rows}
    row = result.rows[0] if label is None else found.get(label)
    if row is None:
        raise ConfigError(f"{folder} has no row '{label}'.{nearest(str(label), found)}")
    if not len(read_federation(RunFolder.open(folder)).test):
        raise DataError(
            f"{folder} was scored by its clients on rows that stay with them, and scores of patients do not leave a "
            "site: there is no paired test on rows; compare several seeds with `fedimb compare STUDY`"
        )
    try:
        scores = RowScores.read(folder, row.label)
    except FileNotFoundError:
        raise FedimbError(
            f"{folder} has no scores of its test rows (it is of an earlier version, or its artifacts were deleted): "
            "run its configuration again"
        ) from None
    if not np.isfinite(scores.logits).all():
        raise FedimbError(f"{folder} diverged: the scores of '{row.label}' are not finite, so there is nothing to test")
    if not np.array_equal(scores.confusion(), row.confusion):
        raise FedimbError(
            f"{folder}: the scores of '{row.label}' do not give the confusion matrix in result.json; one of the two "
            "files is damaged or from another run: run the configuration again"
        )
    called = row.label if name is None else name
    return ScoredRow(called, folder, result.seed, scores, result.minority, "; ".join(row.suspect.values()))


def check_same_rows(a: ScoredRow, b: ScoredRow) -> None:
    """Refuse two runs that were not scored on the same rows.

    Raises:
        DataError: other classes, other rows, or rows with other contents.
    """
    one, other = a.scores, b.scores
    where = f"{a.folder} and {b.folder}"
    if one.class_names != other.class_names or one.several != other.several:
        raise DataError(f"{where} do not have the same classes, so there is no paired test of them")
    if not np.array_equal(one.rows, other.rows):
        shared = np.intersect1d(one.rows, other.rows).size
        raise DataError(
            f"{where} were not scored on the same rows ({len(one.rows)} and {len(other.rows)}, {shared} of them in "
            "common), so there is no paired test: use the same data.test, data.public and seed"
        )
    if one.test_set != other.test_set or not np.array_equal(one.labels, other.labels):
        raise DataError(
            f"{where} were scored on rows with the same numbers and other contents (test set {one.test_set[:8]} and "
            f"{other.test_set[:8]}): the data changed between the runs; run both on the same data"
        )


def compare_models(a: ScoredRow, b: ScoredRow, level: float = 0.95, resamples: int = RESAMPLES) -> ModelPair:
    """Test model A against model B on their common test rows.

    Args:
        a, b: see `read_row`.
        level: confidence level of intervals; tests use the significance level 1 - level.
        resamples: of the bootstrap; its draws, and those of large null distributions, have a fixed seed.

    Raises:
        DataError: see `check_same_rows`.
    """
    check_same_rows(a, b)
    one, other = a.scores, b.scores
    units = one.patients if one.patients is not None and np.unique(one.patients).size < len(one.rows) else None
    minority = a.minority if a.minority == b.minority else ()
    targets, names, known = one.targets, one.class_names, one.known
    auroc = tuple(
        delong(
            targets[known[:, c], c],
            one.probabilities[known[:, c], c],
            other.probabilities[known[:, c], c],
            None if units is None else units[known[:, c]],
            level,
        )
        for c in range(len(names))
    )
    rng = numpy_rng(0, Stream.BOOTSTRAP, 1)
    predicted = one.predicted, other.predicted
    recall = recall_tests(targets, *predicted, minority, rng, resamples, units, level, one.several)
    pair = ModelPair(
        a,
        b,
        len(one.rows),
        0 if units is None else int(np.unique(units).size),
        minority,
        auroc,
        _holm(
            [test.p if test.units >= FEW_ROWS else math.nan for test in auroc],
            [bool(test.positives and test.negatives) for test in auroc],
        ),
        recall,
        _holm([test.p for test in recall.classes], [bool(test.rows) for test in recall.classes]),
        (),
        level,
    )
    return ModelPair(**(vars(pair) | {"notes": tuple(_notes(pair))}))


def _holm(values: Sequence[float], planned: Sequence[bool]) -> tuple[float, ...]:
    """Holm over the classes that have rows; a planned test that could not be made counts."""
    adjusted = holm({str(c): p for c, p in enumerate(values) if planned[c]})
    return tuple(adjusted.get(str(c), math.nan) for c in range(len(values)))


def _notes(pair: ModelPair) -> list[str]:
    names, counted = pair.class_names, "patients" if pair.patients else "rows"
    notes = [f"suspect, {one.label}, seed {one.seed}: {one.suspect}" for one in (pair.a, pair.b) if one.suspect]
    if pair.patients:
        notes.append(
            f"{pair.rows} rows of {pair.patients} patients: every test counts patients, since rows of one patient are "
            "not independent"
        )
    if pair.a.minority != pair.b.minority:
        notes.append("the two runs' minority classes differ, so minority recall is not compared")
    if pair.a.seed != pair.b.seed:
        notes.append(
            f"seeds {pair.a.seed} and {pair.b.seed}: the difference includes the luck of one training run each"
        )
    if absent := [names[c] for c, test in enumerate(pair.recall.classes) if not test.rows]:
        notes.append(f"without test rows: {_named(absent)}")
    still = [c for c, test in enumerate(pair.auroc) if test.units >= FEW_ROWS and math.isnan(test.p)]
    if still:
        notes.append(f"no test of AUROC, because neither model's placement of any row varies: {_of(pair, still)}")
    few = [c for c, test in enumerate(pair.auroc) if test.positives and test.negatives and test.units < FEW_ROWS]
    if few:
        notes.append(
            f"fewer than {FEW_ROWS} {counted}, where DeLong's p errs too often, so nothing is claimed of their AUROC: "
            + _of(pair, few)
        )
    blind = [c for c, test in enumerate(pair.recall.classes) if test.rows and test.smallest_p > pair.alpha]
    if blind:
        notes.append(
            f"too few {counted} with different results for any p of recall below {pair.alpha:g}: {_of(pair, blind)}"
        )
    return notes


def _of(pair: ModelPair, classes: Sequence[int]) -> str:
    return _named([pair.class_names[c] for c in classes])


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def compare_seeds(
    a: Mapping[int, ScoredRow | str],
    b: Mapping[int, ScoredRow | str],
    setting: str = "default",
    labels: tuple[str, str] = ("A", "B"),
    level: float = 0.95,
) -> SeedPairs:
    """Test the two rows of each seed on that seed's test rows, and then their differences over the seeds.

    Args:
        a, b: by seed the row, or why there is none (the run failed or diverged).
        setting: the study's setting.
        labels: what the two rows are called.
        level: confidence level.

    Raises:
        DataError: see `check_same_rows`; of any seed.
        FedimbError: no seed has both.
    """
    pairs: dict[int, ModelPair] = {}
    missing: dict[int, str] = {}
    for seed in sorted(a.keys() | b.keys()):
        one, other = a.get(seed, f"no run of {labels[0]}"), b.get(seed, f"no run of {labels[1]}")
        if isinstance(one, ScoredRow) and isinstance(other, ScoredRow):
            pairs[seed] = compare_models(one, other, level)
        else:
            missing[seed] = "; ".join(reason for reason in (one, other) if isinstance(reason, str))
    if not pairs:
        raise FedimbError(
            f"no seed of setting '{setting}' has a finished run of both rows ({next(iter(missing.values()))})"
        )
    first = next(iter(pairs.values()))
    if any(pair.class_names != first.class_names for pair in pairs.values()):
        raise DataError("the seeds' runs do not have the same classes")
    asked = {seed for seed in missing if seed in a and seed in b}
    classes = range(len(first.class_names))

    def over_seeds(values: Callable[[ModelPair], tuple[float, float]]) -> Paired:
        both = [values(pair) for pair in pairs.values()] + [(math.nan, math.nan)] * len(asked)
        return paired([one for one, _ in both], [other for _, other in both], level=level)

    auroc = [over_seeds(partial(_areas, c=c)) for c in classes]
    recall = [over_seeds(partial(_recalls_of, c=c)) for c in classes]
    macro = over_seeds(lambda pair: _recalls(pair.recall.macro))
    minority = over_seeds(lambda pair: _recalls(pair.recall.minority))
    notes = [note for pair in pairs.values() for note in pair.notes if note.startswith("suspect, ")]
    notes += [note for note in first.notes if note not in notes and all(note in pair.notes for pair in pairs.values())]
    if len({pair.minority for pair in pairs.values()}) > 1:
        notes.append("the minority classes differ between seeds: a class is frequent in one seed and rare in another")
    tested = sum(test.n > 0 for test in recall)
    for count, what in ((1, "minority and macro recall"), (tested, "single classes")):
        if note := power_note(len(pairs), count, round(1 - level, 12)):
            notes.append(f"{what}: {note}")
    return SeedPairs(
        setting,
        *labels,
        pairs,
        _across(auroc),
        _across(recall),
        AcrossSeeds(macro, macro.p),
        AcrossSeeds(minority, minority.p),
        missing,
        tuple(notes),
        level,
    )


def _areas(pair: ModelPair, c: int) -> tuple[float, float]:
    return pair.auroc[c].auroc_a, pair.auroc[c].auroc_b


def _recalls_of(pair: ModelPair, c: int) -> tuple[float, float]:
    return _recalls(pair.recall.classes[c])


def _recalls(test: RecallTest) -> tuple[float, float]:
    return test.recall_a, test.recall_b


def _across(tests: Sequence[Paired]) -> tuple[AcrossSeeds, ...]:
    adjusted = _holm([test.p for test in tests], [test.n > 0 for test in tests])
    return tuple(AcrossSeeds(test, p) for test, p in zip(tests, adjusted, strict=True))
