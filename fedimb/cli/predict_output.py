"""Predictions as CSV, Parquet, JSON or JSON lines, written batch by batch; the file is there whole or not at all."""

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from fedimb.errors import ConfigError, DataError
from fedimb.rundir.prediction import Predictions, label_text

_ROW_GROUP = 32768  # rows per group of a Parquet file
_REFUSED = (".xlsx", ".xls", ".ods", ".feather", ".npz", ".npy", ".h5", ".pkl", ".html")

Table = tuple[list[str], list[list[Any]]]
"""Column names, and one list of values per column."""


def check_output(out: Path) -> None:
    """Refuse, before any work, a file that cannot be written.

    Raises:
        ConfigError: a format that is not written here, or Parquet without pyarrow.
        DataError: the folder does not exist or cannot be written, or the file is a folder.
    """
    if out.suffix.lower() in _REFUSED:
        raise ConfigError(f"--out {out}: predictions are written as .csv, .parquet, .json or .jsonl")
    if _format(out) is _parquet:
        _pyarrow(out)
    if out.is_dir():
        raise DataError(f"cannot write {out}: it is a folder; give a file in it")
    if out.is_symlink() or (out.exists() and not out.is_file()):
        raise DataError(f"cannot write {out}: it is a link or a device, and would be replaced; give a file")
    if not out.parent.is_dir():
        raise DataError(f"cannot write {out}: no folder {out.parent}; create it")
    if not os.access(out.parent, os.W_OK):
        raise DataError(f"cannot write {out}: no permission in {out.parent}")


def write_predictions(batches: Iterable[Predictions], out: Path, own_probabilities: bool = False) -> None:
    """Write ``row``, ``id`` (if the data name rows), ``predicted``, ``score:<class>`` ... and ``true`` (if labelled).

    Where rows have several labels, ``labels`` stands for ``predicted``: their names joined by ``|``, as in ``true``,
    where a class of which it is not known has a ? before it.
    The suffix of ``out`` chooses the format: .csv (also for unknown suffixes), .parquet, .json, .jsonl.

    Args:
        own_probabilities: add ``probability:<class>``, before calibration.

    Raises:
        DataError: no batch, or the file cannot be written; whatever ``batches`` raises: then nothing is left behind.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    tables = _tables(batches, own_probabilities)
    try:
        with open(temporary, "wb") as file:
            _format(out)(tables, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, out)
    except OSError as error:
        raise DataError(f"cannot write {out} ({error.strerror or error}): give another --out, or make room") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _tables(batches: Iterable[Predictions], own_probabilities: bool) -> Iterator[Table]:
    empty = True
    for batch in batches:
        empty = False
        yield _table(batch, own_probabilities)
    if empty:
        raise DataError("the data have no rows to predict")


def _table(batch: Predictions, own_probabilities: bool) -> Table:
    names = batch.class_names
    columns: dict[str, list[Any]] = {"row": batch.rows.tolist()}
    if batch.ids is not None:
        columns["id"] = list(batch.ids)
    columns["labels" if batch.several else "predicted"] = list(batch.classes)
    columns |= {f"score:{name}": batch.scores[:, c].tolist() for c, name in enumerate(names)}
    if own_probabilities:
        columns |= {f"probability:{name}": batch.probabilities[:, c].tolist() for c, name in enumerate(names)}
    if batch.known is not None:
        columns["known"] = batch.known.tolist()
    if batch.labels is not None:
        columns["true"] = [label_text(label, names) for label in batch.labels]
    return list(columns), list(columns.values())


def _is_number(name: str) -> bool:
    return name == "known" or name.startswith(("score:", "probability:"))


def _csv(tables: Iterator[Table], file: IO[bytes]) -> None:
    header = False
    for names, columns in tables:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        if not header:
            writer.writerow(names)
            header = True
        shown = [
            [f"{value:.6g}" for value in column] if _is_number(name) else column
            for name, column in zip(names, columns, strict=True)
        ]
        writer.writerows(zip(*shown, strict=True))
        file.write(text.getvalue().encode())


def _objects(tables: Iterator[Table]) -> Iterator[str]:
    """One JSON object per row; numbers as in the CSV, null for no class."""
    for names, columns in tables:
        shown = [
            [float(f"{value:.6g}") for value in column]
            if _is_number(name)
            else [None if value == "" and name in ("predicted", "true") else value for value in column]
            for name, column in zip(names, columns, strict=True)
        ]
        for row in zip(*shown, strict=True):
            yield json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False)


def _json_lines(tables: Iterator[Table], file: IO[bytes]) -> None:
    for line in _objects(tables):
        file.write(f"{line}\n".encode())


def _json(tables: Iterator[Table], file: IO[bytes]) -> None:
    before = "[\n"
    for line in _objects(tables):
        file.write(f"{before}{line}".encode())
        before = ",\n"
    file.write(b"\n]\n")


def _parquet(tables: Iterator[Table], file: IO[bytes]) -> None:
    pa, pq = _pyarrow(Path("predictions.parquet"))
    writer, held, rows = None, [], 0
    for names, columns in tables:
        arrays = []
        for name, column in zip(names, columns, strict=True):
            if _is_number(name):
                arrays.append(pa.array(np.array(column, np.float32)))
            elif name == "row":
                arrays.append(pa.array(column, pa.int64()))
            else:
                arrays.append(pa.array([value or None if name != "labels" else value for value in column], pa.string()))
        held.append(pa.table(dict(zip(names, arrays, strict=True))))
        rows += len(columns[0])
        writer = writer or pq.ParquetWriter(file, held[0].schema)
        if rows >= _ROW_GROUP:
            writer.write_table(pa.concat_tables(held).combine_chunks())
            held, rows = [], 0
    if writer is not None:
        if held:
            writer.write_table(pa.concat_tables(held).combine_chunks())
        writer.close()


def _pyarrow(out: Path) -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError(f"--out {out}: Parquet needs pyarrow: pip install pyarrow") from None
    return pa, pq


def _format(out: Path) -> Callable[[Iterator[Table], IO[bytes]], None]:
    formats = {".parquet": _parquet, ".pq": _parquet, ".json": _json, ".jsonl": _json_lines, ".ndjson": _json_lines}
    return formats.get(out.suffix.lower(), _csv)
