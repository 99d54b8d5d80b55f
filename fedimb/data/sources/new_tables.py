"""Rows of a table to predict: columns found by name, encoded as the run's were."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.inputs import TableColumns
from fedimb.data.new_rows import Expected, RowBatch, batch_rows
from fedimb.data.problems import Problems
from fedimb.data.sources.table_features import FeatureColumns
from fedimb.data.sources.table_file import Layout, column, read_table
from fedimb.data.sources.table_numbers import NumberFormat
from fedimb.data.sources.table_opened import OpenedTable
from fedimb.data.sources.table_target import spelling_of
from fedimb.errors import ConfigError, DataError, nearest

_SHOWN = 8
_NUMBERS = (
    ", as it was in training; a mark of missing values is given with --source ... missing_values={column: [mark]}"
)

OpenNew = Callable[[Mapping[str, Sequence[str]]], OpenedTable]
"""Column -> values of the training data, for how booleans are spelled; opens the table."""
ReadLabel = Callable[[Sequence[str]], Any]
"""A row's label columns -> its class id (`fedimb.data.new_rows.UNKNOWN` if empty), or 0/1 per class."""


@dataclass(frozen=True)
class TableSettings:
    """What the columns of a table are, besides those that the model reads.

    Attributes:
        targets: label columns: all of them are there, or none.
        beside: columns that a training file may have and no model reads: patient, site, split, dropped ones.
        missing: column -> values that mean "missing" here, in addition to those of the training data.
        missing_anywhere: such values of every column.
        numbers: how numbers are written in a text file.
    """

    targets: tuple[str, ...]
    beside: tuple[str, ...] = ()
    missing: dict[str, list[int | float | str]] = field(default_factory=dict)
    missing_anywhere: tuple[int | float | str, ...] = ()
    numbers: NumberFormat = field(default_factory=NumberFormat)


@dataclass
class _Rows:
    """The rows of the batch that is being read."""

    features: FeatureColumns
    numbers: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)


def table_batches(
    open_new: OpenNew,
    path: str,
    settings: TableSettings,
    read_label: ReadLabel,
    expected: Expected,
    problems: Problems,
    start: int = 0,
) -> Generator[RowBatch, None, int]:
    """Batches of a table's rows, numbered from ``start``; returns the number after the last row.

    Args:
        open_new: opens the table.
        path: its name in messages.

    Raises:
        DataError: columns missing, unknown or twice, a file that cannot be read; ConfigError: its library is not
            installed.
    """
    wanted = expected.inputs.columns
    if wanted is None:
        raise DataError(
            f"{path}: the run keeps no names of its columns, so a table's cannot be matched: give the training table's "
            "settings with columns=[...], every category and the indicators listed (data=... or --source), or an .npz "
            f"with x [n, {', '.join(map(str, expected.inputs.shape))}]"
        )
    spelled = {name: wanted.categories.get(name, ()) for name in wanted.names} | dict.fromkeys(
        settings.targets, expected.class_names
    )
    table = open_new(spelled)
    if table.blocks is not None:  # typed columns are not text
        settings = replace(settings, numbers=NumberFormat())
    names, records = table.names, table.records
    at, labels_at = _positions(path, names, settings, wanted, expected)
    id_at = None if expected.id_column is None else column(expected.id_column, names, "--id", path)
    missing = np.zeros(len(wanted.inputs), np.int64)

    def take(number: int, fields: list[str], batch: _Rows) -> None:
        if len(fields) != len(names):
            raise DataError(f"{len(fields)} fields where the table has {len(names)} columns")
        if id_at is not None and fields[id_at] == "":
            raise DataError(f"the id (column '{names[id_at]}') is empty")
        label = read_label([fields[i] for i in labels_at]) if labels_at else None
        batch.features.add([fields[i] for i in at])
        batch.numbers.append(number)
        batch.labels.append(label)
        if id_at is not None:
            batch.ids.append(fields[id_at])

    def finished(batch: _Rows) -> RowBatch:
        x = batch.features.table().x
        np.add(missing, np.isnan(x).sum(0), out=missing)
        labels: NDArray[Any] | None = None
        if labels_at:
            labels = np.array(batch.labels, dtype=np.uint8 if expected.several else np.int64)
            labels = expected.targets(labels) if expected.several else labels
        ids = None if id_at is None else tuple(batch.ids)
        return RowBatch(np.array(batch.numbers, dtype=np.int64), x, ids, labels)

    at_once, batch, number = (
        batch_rows(expected.inputs.shape),
        _Rows(_encoder(wanted, settings, table.typed)),
        start - 1,
    )
    for number, (place, fields) in enumerate(records, start):
        try:  # `Problems.guard` without a closure per row: files have millions
            take(number, fields, batch)
        except DataError as error:
            problems.add(place, str(error))
        if len(batch.numbers) == at_once:
            yield finished(batch)
            batch = _Rows(_encoder(wanted, settings, table.typed))
    if batch.numbers:
        yield finished(batch)
    _note_missing(missing, wanted, expected)
    return number + 1


def _encoder(wanted: TableColumns, settings: TableSettings, typed: bool) -> FeatureColumns:
    categories = {name: list(values) for name, values in wanted.categories.items()}
    missing = {
        name: [*wanted.missing.get(name, ()), *settings.missing.get(name, ()), *settings.missing_anywhere]
        for name in wanted.names
    }
    return FeatureColumns(
        wanted.names,
        categories,  # type: ignore[arg-type]
        missing,
        wanted.indicators,
        _NUMBERS,
        spelling_of(wanted),
        settings.numbers,
        typed=typed,
    )


def _positions(
    path: str, names: tuple[str, ...], settings: TableSettings, wanted: TableColumns, expected: Expected
) -> tuple[list[int], list[int]]:
    """Indices of the feature columns in the model's order, and of the label columns (empty without labels)."""
    if absent := [name for name in wanted.names if name not in names]:
        raise DataError(
            f"{path} lacks {_columns(absent)} that the run was trained on.{nearest(absent[0], names)} "
            "Add what is missing: an empty field is a missing value"
        )
    for name in expected.ignored:
        column(name, names, "--drop", path)
        if name in wanted.names:
            raise ConfigError(f"--drop {name}: the run was trained on this column")
    known = {*wanted.names, *settings.targets, *settings.beside, *expected.ignored, expected.id_column}
    if extra := [name for name in names if name not in known]:
        raise DataError(
            f"{path} has {_columns(extra)} that the run was not trained on: name the rows' ids with "
            f"--id {extra[0]}, or leave columns out with --drop {extra[0]}"
        )
    if [name for name in names if name in wanted.names] != list(wanted.names):
        expected.notes.append(f"{path}: columns are in another order than in training and were matched by name")
    there = [name for name in settings.targets if name in names and name not in expected.ignored]
    if there and len(there) < len(settings.targets):
        lacking = next(name for name in settings.targets if name not in there)
        raise DataError(f"{path} has label column '{there[0]}' but not '{lacking}': give all of them, or none")
    return [names.index(name) for name in wanted.names], [names.index(name) for name in there]


def _columns(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"column '{shown}'" if len(names) == 1 else f"{len(names)} columns ({shown})"


def _note_missing(missing: NDArray[np.int64], wanted: TableColumns, expected: Expected) -> None:
    for name, count in zip(wanted.inputs, missing.tolist(), strict=True):
        if count and name not in wanted.indicators:
            expected.notes.append(
                f"{count:,} values of column '{name}' are missing, which no training row had marked: its training "
                "mean is used"
            )


def open_new_text(path: str, layout: Layout, targets: Sequence[str], wanted: Sequence[str]) -> OpenedTable:
    """A text table of rows to predict: with or without label columns, and with a header even if the run's had none.

    Args:
        layout: of the training files; ``columns`` count only where this file has no header.
        targets: label columns.
        wanted: feature columns of the run.
    """
    names = layout.columns or ()
    if layout.header:
        layout = replace(layout, columns=None)
    else:
        first = next(read_table(path, replace(layout, columns=("",)))[1])[1]  # the first row, whatever it holds
        if set(wanted) <= set(first):
            layout = replace(layout, header=True, columns=None)
        else:
            bare = tuple(name for name in names if name not in targets)
            layout = replace(layout, columns=bare if len(first) == len(bare) else names)
    found, records = read_table(path, layout)
    return OpenedTable(path, found, records)
