"""Rows of a table to predict, from CSV or Parquet: columns found by name, encoded as the run's were."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.inputs import TableColumns
from fedimb.data.new_rows import Expected, RowBatch, batch_rows
from fedimb.data.problems import Problems
from fedimb.data.sources.files import regular_file
from fedimb.data.sources.table_features import FeatureColumns
from fedimb.data.sources.table_file import Layout, Record, column, read_table
from fedimb.data.sources.table_numbers import NumberFormat
from fedimb.data.sources.table_target import spelling_of
from fedimb.errors import ConfigError, DataError, nearest

PARQUET = (".parquet", ".pq")
_SHOWN = 8
_NUMBERS = (
    ", as it was in training; a mark of missing values is given with --source ... missing_values={column: [mark]}"
)

ReadLabel = Callable[[Sequence[str]], Any]
"""A row's label columns -> its class id (`fedimb.data.new_rows.UNKNOWN` if empty), or 0/1 per class."""


@dataclass(frozen=True)
class TableSettings:
    """How a table's file is laid out.

    Attributes:
        layout: of a text file. ``columns`` count only where the file has no header.
        targets: label columns: all of them are there, or none.
        beside: columns that a training file may have and no model reads: patient, site, split, dropped ones.
        missing: column -> values that mean "missing" here, in addition to those of the training data.
        missing_anywhere: such values of every column.
        numbers: how numbers are written in a text file, and in text columns of Parquet.
    """

    layout: Layout
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
    path: str, settings: TableSettings, read_label: ReadLabel, expected: Expected, problems: Problems, start: int = 0
) -> Generator[RowBatch, None, int]:
    """Batches of a table's rows, numbered from ``start``; returns the number after the last row.

    Raises:
        DataError: columns missing, unknown or twice, a file that cannot be read; ConfigError: pyarrow not installed.
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
    names, records = _open(path, settings, wanted, spelled)
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

    at_once, batch, number = batch_rows(expected.inputs.shape), _Rows(_encoder(wanted, settings)), start - 1
    for number, (place, fields) in enumerate(records, start):
        try:  # `Problems.guard` without a closure per row: files have millions
            take(number, fields, batch)
        except DataError as error:
            problems.add(place, str(error))
        if len(batch.numbers) == at_once:
            yield finished(batch)
            batch = _Rows(_encoder(wanted, settings))
    if batch.numbers:
        yield finished(batch)
    _note_missing(missing, wanted, expected)
    return number + 1


def _encoder(wanted: TableColumns, settings: TableSettings) -> FeatureColumns:
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


def _open(
    path: str, settings: TableSettings, wanted: TableColumns, spelled: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], Iterator[Record]]:
    if path.lower().endswith(PARQUET):
        return read_parquet(path, spelled, settings.numbers.decimal)
    layout = settings.layout
    if layout.header:
        return read_table(path, replace(layout, columns=None))
    names = layout.columns or ()
    first = next(read_table(path, replace(layout, columns=("",)))[1])[1]  # the first row, whatever it holds
    if set(wanted.names) <= set(first):  # the run's files had no header, this one has
        return read_table(path, replace(layout, header=True, columns=None))
    bare = tuple(name for name in names if name not in settings.targets)
    return read_table(path, replace(layout, columns=bare if len(first) == len(bare) else names))


def read_parquet(
    path: str, spelled: Mapping[str, Sequence[str]] | None = None, decimal: str = "."
) -> tuple[tuple[str, ...], Iterator[Record]]:
    """Column names and rows of text, as `read_table` gives them; null and NaN are empty fields, booleans 1 and 0.

    Args:
        path: the file.
        spelled: column -> values of the training data: booleans are True and False where these hold such a value.
        decimal: the sign to write numbers with, as the text around them does.

    Raises:
        ConfigError: pyarrow is not installed. DataError: not a Parquet file, or a column name occurs twice.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError(f"{path}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        file = pq.ParquetFile(regular_file(path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file ({' '.join(str(error).split())[:200]})") from error
    names = tuple(file.schema_arrow.names)
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise DataError(f"{path}: column '{twice}' occurs twice; rename one")

    truth = [_truth((spelled or {}).get(name, ())) for name in names]

    def records() -> Iterator[Record]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=4096):
                for fields in zip(
                    *(_texts(*one, decimal) for one in zip(batch.columns, truth, strict=True)), strict=True
                ):
                    number += 1
                    yield f"{path} row {number}", list(fields)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is damaged after row {number} ({' '.join(str(error).split())[:200]})") from error

    rows = records()
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path} has no rows; add rows or leave the file out")
    return names, chain([first], rows)


def _truth(values: Sequence[str]) -> tuple[str, str]:
    """How False and True are spelled among the values of a column."""
    for pair in (("False", "True"), ("false", "true"), ("FALSE", "TRUE")):
        if {*pair} & {*values}:
            return pair
    return ("0", "1")


def _texts(column: Any, truth: tuple[str, str], decimal: str) -> list[str]:
    return [_text(value, truth, decimal) for value in column.to_pylist()]


def _text(value: object, truth: tuple[str, str], decimal: str) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return truth[value]
    return str(value).strip() if isinstance(value, str) else str(value).replace(".", decimal)
