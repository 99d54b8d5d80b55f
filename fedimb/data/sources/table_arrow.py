"""Parquet and Arrow files: typed columns, read in blocks. Whole numbers stay exact, also beside missing ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.sources.files import regular_file
from fedimb.data.sources.table_file import Record
from fedimb.data.sources.table_opened import Coded, OpenedTable, first_of
from fedimb.errors import ConfigError, DataError

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
EXACT = 2**53  # float64 holds every whole number up to here
EXACT_NARROW = 2**24  # and float32 up to here
_EXACT_BITS = {64: 53, 32: 24, 16: 11}
_ROWS = 1 << 16  # of a block


def open_arrow(path: str, spelled: Mapping[str, Sequence[str]] | None = None) -> OpenedTable:
    """A Parquet file, or an Arrow file (IPC file or stream, Feather version 2).

    Missing values and NaN are empty fields, booleans 1 and 0, decimals written out, dates ISO 8601.

    Args:
        path: the file.
        spelled: column -> values of the training data: booleans are True and False where these hold such a value.

    Raises:
        ConfigError: pyarrow is not installed. DataError: not such a file, or a column name occurs twice.
    """
    kind = "Parquet" if path.lower().endswith(PARQUET) else "Arrow"
    try:
        import pyarrow as pa
    except ImportError:
        raise ConfigError(f"{path}: reading {kind} needs pyarrow: pip install 'fedimb[parquet]'") from None
    failures = (pa.ArrowException, OSError)
    try:
        schema, batches = (_parquet if kind == "Parquet" else _arrow)(str(regular_file(path)))
    except failures as error:
        raise DataError(f"{path} is not a readable {kind} file ({_one_line(error)})") from error
    names = tuple(schema.names)
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise DataError(f"{path}: column '{twice}' occurs twice; rename one")
    truth = [truth_words((spelled or {}).get(name, ())) for name in names]

    def blocks() -> Iterator[ArrowBlock]:
        done = 0
        try:
            for batch in batches():
                if batch.num_rows:
                    yield ArrowBlock(path, batch, done, truth)
                done += batch.num_rows
        except failures as error:
            raise DataError(f"{path} is damaged after row {done} ({_one_line(error)}); copy it again") from error

    held = first_of(blocks(), path)
    odd = {field.name: what for field in schema if (what := _odd(field.type))}
    return OpenedTable(path, names, (record for block in held for record in block.records()), held, odd=odd)


class ArrowBlock:
    """One batch of rows; see `fedimb.data.sources.table_opened.Block`.

    Args:
        path: of the file, for messages.
        batch: a pyarrow.RecordBatch.
        start: number of rows before it.
        truth: how False and True are spelled, for each column.
    """

    def __init__(self, path: str, batch: Any, start: int, truth: Sequence[tuple[str, str]]) -> None:
        self._path, self._batch, self._start, self._truth = path, batch, start, truth

    def numbers(self, column: int) -> NDArray[np.float64] | None:
        """See `Block`."""
        import pyarrow as pa

        values = self._batch.column(column)
        kind = values.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            return None
        if pa.types.is_boolean(kind):
            values = values.cast(pa.uint8())
        # Not `safe`: the model reads float32, so a feature beyond 2^53 is rounded in any case.
        found: NDArray[np.float64] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return found

    def texts(self, column: int, identifier: bool = False) -> Coded:
        """See `Block`."""
        import pyarrow as pa

        values = self._batch.column(column)
        if identifier and pa.types.is_floating(kind := _value_type(values)):
            name, plain = self._batch.schema.names[column], values.cast(kind).cast(pa.float64())
            numbers = plain.to_numpy(zero_copy_only=False)
            refuse_inexact(self._path, name, self._start, numbers, _EXACT_BITS[kind.bit_width])
        coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        words = [text_of(value, self._truth[column]) for value in as_written(coded.dictionary)]
        codes = coded.indices.cast(pa.int64()).fill_null(len(words)).to_numpy(zero_copy_only=False)
        found: dict[str, int] = {}  # by text: 1.0 and NaN of several kinds may share one
        of_code = [found.setdefault(word, len(found)) for word in (*words, "")]
        shared = np.array(of_code, dtype=np.int64)[codes]
        used, firsts, again = np.unique(shared, return_index=True, return_inverse=True)
        order = np.argsort(firsts)
        place = np.empty(len(used), np.int64)
        place[order] = np.arange(len(used))
        spelled = list(found)
        return place[again], [spelled[used[i]] for i in order]

    def records(self) -> Iterator[Record]:
        """See `Block`."""
        columns = [
            [text_of(value, truth) for value in as_written(values)]
            for values, truth in zip(self._batch.columns, self._truth, strict=True)
        ]
        for number, fields in enumerate(zip(*columns, strict=True), self._start + 1):
            yield f"{self._path} row {number}", list(fields)


def as_written(values: Any) -> list[Any]:
    """A pyarrow array as Python values; a narrow float as its shortest decimal: 0.7, not 0.699999988079071."""
    import pyarrow as pa

    found: list[Any] = values.to_pylist()
    kind = _value_type(values)
    if not pa.types.is_floating(kind) or pa.types.is_float64(kind):
        return found
    return [None if value is None else shortest(value, kind.to_pandas_dtype()) for value in found]


def shortest(value: float, narrow: type[np.floating[Any]] = np.float32) -> float:
    """The number whose decimals are the fewest that a narrow float needs."""
    return float(str(narrow(value)))


def _value_type(values: Any) -> Any:
    """Type of a pyarrow array's values; of a dictionary-encoded one that of its dictionary."""
    return values.type.value_type if hasattr(values.type, "value_type") else values.type


def refuse_inexact(path: str, name: str, start: int, values: NDArray[np.float64], bits: int) -> None:
    """Raise DataError if a float column of identifiers holds a number that may stand for several whole ones."""
    wrong = np.flatnonzero(np.abs(values) >= 2**bits)  # False for NaN
    if len(wrong):
        raise DataError(
            f"{path} row {start + wrong[0] + 1}: column '{name}' names something and holds the float "
            f"{values[wrong[0]]:.0f}: from 2^{bits} on floats merge whole numbers; save the column as integers or text"
        )


def truth_words(values: Sequence[str]) -> tuple[str, str]:
    """How False and True are spelled among the values of a column."""
    for pair in (("False", "True"), ("false", "true"), ("FALSE", "TRUE")):
        if {*pair} & {*values}:
            return pair
    return ("0", "1")


def text_of(value: object, truth: tuple[str, str] = ("0", "1")) -> str:
    """A typed value as the text that a CSV would hold."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return truth[value]
    if isinstance(value, Decimal):
        return format(value, "f")  # str() may write 1E+2, which is text and not the number 100
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value).strip()


def _odd(kind: Any) -> str | None:
    """What a column holds if it is neither numbers nor text."""
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_temporal(kind):
        return "dates or times"
    if is_a.is_binary(kind) or is_a.is_large_binary(kind) or is_a.is_fixed_size_binary(kind):
        return "bytes"
    return "lists or records" if is_a.is_nested(kind) else None


def _parquet(path: str) -> tuple[Any, Callable[[], Iterator[Any]]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    return file.schema_arrow, lambda: file.iter_batches(batch_size=_ROWS)


def _arrow(path: str) -> tuple[Any, Callable[[], Iterator[Any]]]:
    import pyarrow as pa

    source = pa.memory_map(path)
    try:
        file = pa.ipc.open_file(source)
        return file.schema, lambda: (file.get_batch(i) for i in range(file.num_record_batches))
    except pa.ArrowInvalid:
        stream = pa.ipc.open_stream(pa.memory_map(path))
        return stream.schema, lambda: iter(stream)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
