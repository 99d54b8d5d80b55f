"""Predictions of a finished run's model on new rows or its own test set, written while they are made."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.cli.predict_output import check_output, write_predictions
from fedimb.config.load import row_label
from fedimb.data.labels import known_cells
from fedimb.data.new_rows import Expected, RowBatch, store_batches
from fedimb.data.sources.image_folder import ImageFolder
from fedimb.data.subgroups import parse_subgroups
from fedimb.errors import ConfigError, DataError, FedimbError
from fedimb.evaluation.confusion import confusion_matrix
from fedimb.evaluation.multilabel import label_confusion
from fedimb.evaluation.temporal import read_transitions, sequences, viterbi
from fedimb.evaluation.thresholds import ChosenRule
from fedimb.plain import Settings
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.model_file import TrainedModel
from fedimb.rundir.new_data import place_of
from fedimb.rundir.prediction import Predictions
from fedimb.rundir.result import RunResult
from fedimb.rundir.seen_rows import SeenRows
from fedimb.rundir.stored import read_config, read_federation
from fedimb.schema import RunConfig

_CHANCE = 0.01  # share of new rows that may equal training rows without a word
_FEW = 10  # validation rows of a class below which its threshold is hardly known


@dataclass(frozen=True)
class Options:
    """What the command line asks for beside the data; see ``fedimb predict --help``."""

    calibration: str | None = None
    abstain_below: float | None = None
    recall: float | None = None
    best_f1: bool = False
    classes: tuple[str, ...] = ()
    choose_on: Settings | None = None
    id_column: str | None = None
    ignored: tuple[str, ...] = ()
    on_bad: str = "refuse"
    probabilities: bool = False
    transitions: Path | None = None
    sequence: str | None = None


@dataclass
class Scored:
    """What was predicted, without the rows.

    Attributes:
        rows, abstained: number of rows, and of those for which no class is predicted.
        calibration, label: its name, and the label of the run's row it belongs to.
        config: the run's configuration.
        source: what was scored, in words.
        several: whether rows have several labels.
        chosen: thresholds and what they achieve; None without.
        abstain_below: the limit; None without.
        confusion: [C, C] or [C, 2, 2] over the labelled rows; None if no row is labelled.
        warnings: what a reader of the scores must know.
    """

    calibration: str
    label: str
    config: RunConfig
    source: str
    several: bool
    chosen: ChosenRule | None
    abstain_below: float | None
    rows: int = 0
    abstained: int = 0
    confusion: NDArray[np.int64] | None = None
    warnings: list[str] = field(default_factory=list)


def score_to(result: RunResult, source: Settings | None, out: Path, options: Options | None = None) -> Scored:
    """Predict ``source`` (None: the run's own test rows) with a finished run's model, into the file ``out``.

    Raises:
        ConfigError: the run has no such calibration or class, or options that do not go together.
        DataError: the data are not like the run's, or the file cannot be written.
    """
    options = options or Options()
    _check(options, result)
    if options.transitions is not None:
        _check_frames(options, source, result)
    unused = {"--id": options.id_column, "--drop": options.ignored, "--on-bad": options.on_bad != "refuse"}
    if source is None and (given := [flag for flag, value in unused.items() if value]):
        raise ConfigError(f"{given[0]} goes with DATA, which comes before it: RUN DATA {given[0]} ...")
    check_output(out)
    config = read_config(RunFolder.open(result.folder))
    model = result.model
    name = model.calibration_name(options.calibration)
    several = result.task == "multilabel"
    chosen = _chosen(model, options)
    shown = "the run's own test set" if source is None else ", ".join(f"{k}={v}" for k, v in source.items())
    scored = Scored(name, row_label(config, name), config, shown, several, chosen, options.abstain_below)
    if result.site is not None:
        scored.warnings.append(
            "the run's scores are means over its sites' models; those of this one are in artifacts/site_models.json"
        )
    if why := "; ".join(why for row in result.rows if row.label == scored.label for why in row.suspect.values()):
        scored.warnings.append(f"the run is suspect: {why}")
    predicted = _batches(result, model, source, options, scored)
    if options.transitions is not None:
        table = read_transitions(options.transitions, result.class_names)
        predicted = _decoded(predicted, table, options.sequence)
        scored.warnings.append(
            "classes are those of the most probable sequence of rows, in their order, under "
            f"{options.transitions.name}; scores are each row's own, and the run's figures are not of such sequences"
        )
    write_predictions(_counted(predicted, scored, len(result.class_names)), out, options.probabilities)
    if scored.confusion is not None and parse_subgroups(config.data.get("subgroups")):
        scored.warnings.append(
            "the scores are of all rows: predictions are not scored by the run's data.subgroups; those of its own rows "
            "are in artifacts/subgroups.json"
        )
    if chosen is not None:
        if options.choose_on is not None and source is not None and _same_data(options.choose_on, source):
            scored.warnings.append(
                "the thresholds were chosen on these rows: how well they do here says nothing of others"
            )
        scored.warnings += _doubts(chosen, result.class_names, options.recall)
    return scored


def _check(options: Options, result: RunResult) -> None:
    aims = (options.recall is not None) + options.best_f1
    if aims > 1:
        raise ConfigError("--recall and --best-f1 are two ways to choose thresholds: give one")
    if not aims and (options.classes or options.choose_on is not None):
        raise ConfigError("--class and --choose-on go with --recall or --best-f1: add one")
    if options.abstain_below is not None and aims:
        raise ConfigError("--abstain-below and thresholds per class are two rules for one decision: give one")
    if options.sequence is not None and options.transitions is None:
        raise ConfigError("--sequence goes with --transitions: add it")
    if options.transitions is not None and (aims or options.abstain_below is not None):
        raise ConfigError(
            "--transitions decides the classes of whole sequences: leave out thresholds and --abstain-below"
        )
    if options.transitions is not None and result.task == "multilabel":
        raise ConfigError("--transitions says which class follows which, and rows of this run have several labels")
    least = 1 / len(result.class_names)
    if options.abstain_below is not None and not least < options.abstain_below <= 1:
        raise ConfigError(
            f"--abstain-below {options.abstain_below:g}: the highest of {len(result.class_names)} scores is never "
            f"below {least:.3g}; give a number above that and at most 1"
        )


def _check_frames(options: Options, source: Settings | None, result: RunResult) -> None:
    """Refuse rows of which is known before they are read that they are not frames in order."""
    if source is None:
        raise ConfigError(
            "--transitions is for frames in order, and the run's own test rows are a sample: give the frames as DATA"
        )
    if options.on_bad == "skip":
        raise ConfigError("--transitions with --on-bad skip would join frames that are not neighbours: leave it out")
    made = _built(source)
    if isinstance(made, ImageFolder) and made.has_class_folders(result.class_names):
        raise ConfigError(
            f"--transitions: the frames of {place_of(source)} are in a folder for each class, so their order is that "
            "of the labels: give a folder for each film, or a CSV that lists the frames in order"
        )


def _chosen(model: TrainedModel, options: Options) -> ChosenRule | None:
    if options.recall is None and not options.best_f1:
        return None
    return model.choose_thresholds(
        recall=options.recall,
        classes=options.classes or None,
        calibration=options.calibration,
        on=options.choose_on,
    )


def _batches(
    result: RunResult, model: TrainedModel, source: Settings | None, options: Options, scored: Scored
) -> Iterator[Predictions]:
    """The predictions; ``scored`` gets what must be known of them."""
    if source is None:
        federation = read_federation(RunFolder.open(result.folder))
        inputs = model.origin.inputs
        if not len(federation.test):
            raise DataError(f"{result.folder} has no test set of its own: give the data to predict")
        expected = Expected(inputs, result.class_names, result.task)
        batches = model.predict_batches(
            store_batches(federation.store, federation.test, expected),
            calibration=options.calibration,
            abstain_below=options.abstain_below,
            thresholds=scored.chosen,
        )
        yield from batches
        return
    seen, rows = _Seen(result, source), 0
    for batch in model.predict_batches(
        source,
        calibration=options.calibration,
        abstain_below=options.abstain_below,
        thresholds=scored.chosen,
        id_column=options.id_column,
        ignored=options.ignored,
        on_bad=options.on_bad,
        notes=scored.warnings,
        watch=seen.add,
    ):
        rows += len(batch)
        yield batch
    scored.warnings += seen.warnings(rows)


def _counted(batches: Iterator[Predictions], scored: Scored, classes: int) -> Iterator[Predictions]:
    """The predictions, counted into ``scored`` as they pass."""
    for batch in batches:
        _count(batch, scored, classes)
        yield batch


def _decoded(batches: Iterator[Predictions], table: NDArray[np.float64], pattern: str | None) -> Iterator[Predictions]:
    """All predictions at once, with the classes of the most probable sequences."""
    parts = list(batches)
    if not parts:
        return
    whole = Predictions.joined(parts)
    if len(gaps := np.flatnonzero(np.diff(whole.rows) != 1)):
        raise DataError(
            f"row {whole.rows[gaps[0]] + 1} was left out, so its neighbours are no frames one after the other: "
            "--transitions needs all rows"
        )
    predicted = np.zeros(len(whole), dtype=np.int64)
    for span in sequences(whole.ids, len(whole), pattern):
        predicted[span] = viterbi(whole.scores[span], table)
    yield replace(whole, predicted=predicted)


def _count(batch: Predictions, scored: Scored, classes: int) -> None:
    scored.rows += len(batch)
    if not batch.several:
        scored.abstained += int((batch.predicted < 0).sum())
    if batch.labels is None:
        return
    if batch.several:
        matrix = label_confusion(known_cells(np.asarray(batch.labels, np.uint8)), batch.predicted)
    else:
        known = (batch.labels >= 0) & (batch.predicted >= 0)
        if not (batch.labels >= 0).any():
            return
        matrix = confusion_matrix(batch.labels[known], batch.predicted[known], classes)
    scored.confusion = matrix if scored.confusion is None else scored.confusion + matrix


class _Seen:
    """Counts the rows that the model was trained or validated on: by number in the run's own data, else by contents."""

    def __init__(self, result: RunResult, source: Settings) -> None:
        self._used: NDArray[np.int64] | None = None
        self._equal: SeenRows | None = None
        self._count = 0
        try:
            federation = read_federation(RunFolder.open(result.folder))
            used = np.sort(np.concatenate([federation.train.rows, federation.validation.rows]))
            if _fingerprint(source) == federation.fingerprint and not federation.store.skipped:
                self._used = used
            else:
                self._equal = SeenRows(federation, used)
        except FedimbError:  # the run's rows are elsewhere, or gone: these are not known to be its own
            return

    def add(self, batch: RowBatch) -> None:
        """Count a batch."""
        if self._equal is not None:
            self._equal.add(batch.x)
        elif self._used is not None and len(self._used):
            at = np.minimum(np.searchsorted(self._used, batch.rows), len(self._used) - 1)
            self._count += int((self._used[at] == batch.rows).sum())

    def warnings(self, rows: int) -> list[str]:
        """A line if there were any; of rows known by their contents, if they are more than chance would bring."""
        count = self._count if self._equal is None else self._equal.count
        if not count or (self._equal is not None and count < _CHANCE * rows):
            return []
        return [
            f"{count} of these {rows} rows are ones the model was trained or validated on: "
            "their scores say nothing of new patients"
        ]


def _fingerprint(source: Settings) -> str:
    return str(_built(source).fingerprint())


def _built(source: Settings) -> Any:
    from fedimb import registry

    args = {key: value for key, value in source.items() if key not in ("name", "on_bad", "attributes")}
    return registry.build("source", str(source["name"]), given={"on_bad": source.get("on_bad", "refuse")}, **args)


def _same_data(one: Settings, other: Settings) -> bool:
    return _fingerprint(one) == _fingerprint(other)


def _doubts(chosen: ChosenRule, names: tuple[str, ...], recall: float | None) -> list[str]:
    found = []
    for one in chosen.achieved:
        if one.positives < _FEW:
            found.append(
                f"the threshold of '{names[one.class_id]}' was chosen on {one.positives} rows of it: it is hardly known"
            )
        if recall is not None and one.recall < recall - 1e-9:
            found.append(
                f"'{names[one.class_id]}' reaches recall {one.recall:.3f}, not {recall:g}: other classes' thresholds "
                "compete for its rows"
            )
    return found
