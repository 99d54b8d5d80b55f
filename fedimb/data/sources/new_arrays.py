"""Rows of an .npz to predict, read in batches from the zip: a file larger than memory needs only one batch of it."""

import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.identifiers import identifier
from fedimb.data.inputs import TableColumns
from fedimb.data.new_rows import UNKNOWN, Expected, RowBatch, batch_rows
from fedimb.data.problems import Problems
from fedimb.data.sources.files import regular_file
from fedimb.data.sources.npz_file import DAMAGE, NpzFile, likely_arrays
from fedimb.data.sources.npz_labels import (
    IGNORED,
    Column,
    LabelRule,
    Meaning,
    apply_meaning,
    kind_of,
    read_column,
    read_several,
)
from fedimb.errors import ConfigError, DataError, nearest

IDS = ("ids", "id")
Prepare = Callable[[NDArray[Any], NDArray[np.bool_], int], tuple[NDArray[Any], NDArray[np.bool_]]]
"""(values of a batch, [m] usable rows, number of the first row) -> (values in the run's layout, usable rows)."""


def npz_batches(
    arrays: NpzFile,
    parts: list[tuple[str, str]],
    prepare: Prepare,
    expected: Expected,
    problems: Problems,
    rule: LabelRule,
) -> Iterator[RowBatch]:
    """Batches of an .npz.

    Args:
        arrays: the opened file.
        parts: keys of values and labels; a label key that is not there means rows without labels.
        prepare: see `Prepare`.
        rule: what the settings say of labels; what they mean is as in training, unless this names them.

    Raises:
        DataError: arrays missing, damaged, or of the wrong shape or type.
    """
    if expected.id_column or expected.ignored:
        raise ConfigError(
            f"{arrays.path} has no columns for --id and --drop: leave them out (row ids are an array ids)"
        )
    if (named := expected.inputs.columns or expected.inputs.agreed) is not None:
        shown = ", ".join((named.inputs if isinstance(named, TableColumns) else named.names)[:4])
        expected.notes.append(f"{arrays.path} names no columns: they are taken in the model's order ({shown}, ...)")
    ids = _ids(arrays)
    at_once = batch_rows(expected.inputs.shape)
    streams = [stream_rows(arrays, x_key, at_once) for x_key, _ in parts]
    total = sum(n for n, _ in streams)
    if ids is not None and len(ids) != total:
        raise DataError(f"{arrays.path} has {len(ids)} ids for {total} rows; give one per row")
    start = 0
    for (x_key, y_key), (n, blocks) in zip(parts, streams, strict=True):
        labels, labelled = _labels(arrays, y_key, n, expected, problems, rule)
        done = 0
        for block in blocks:
            here = slice(done, done + len(block))
            x, finite = _as_values(block, arrays.path, x_key, done, problems)
            x, good = prepare(x, finite & labelled[here], done)
            rows = np.arange(start + done, start + done + len(block))[good]
            done += len(block)
            if len(rows):
                names = None if ids is None else tuple(map(str, ids[rows].tolist()))
                yield RowBatch(rows, x[good], names, None if labels is None else labels[here][good])
        start += n


def _ids(arrays: NpzFile) -> NDArray[Any] | None:
    key = next((key for key in IDS if key in arrays.keys), None)
    if key is None:
        return None
    ids = arrays[key]
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise DataError(f"{arrays.path} {key} is {ids.dtype} {list(ids.shape)}; give one whole number or text per row")
    return ids


def _labels(
    arrays: NpzFile, key: str, n: int, expected: Expected, problems: Problems, rule: LabelRule
) -> tuple[NDArray[Any] | None, NDArray[np.bool_]]:
    every = np.ones(n, np.bool_)
    if key not in arrays.keys:
        return None, every
    kind = kind_of(arrays, key, n, rule.labels)
    if (kind == "several") != expected.several:
        given = "multilabel" if kind == "several" else "multiclass"
        raise DataError(
            f"the data are {given}, the run's are {expected.task}: rows of one label, or of several, in both"
        )
    if kind == "several":
        targets, good = read_several(arrays, key, every, list(expected.class_names), problems, rule.cells)
        return expected.targets(targets), good
    column = read_column(arrays, key, every, problems, ignored=rule.ignored, onehot=kind == "onehot")
    good = column.of_row != -1
    meaning = _meaning(column, column.found(good), expected, rule)
    ids, labelled = apply_meaning(column, meaning, good & (column.of_row >= 0), problems)
    return np.where(labelled, ids, UNKNOWN), labelled | (column.of_row == IGNORED)


def _meaning(column: Column, found: set[str], expected: Expected, rule: LabelRule) -> Meaning:
    """What labels of new rows mean: what the settings name, else what they meant in training."""
    named = rule.mapping or expected.inputs.label_names
    if named is not None:
        of = {identifier(label): expected.class_id(str(name)) for label, name in named.items()}
        wrong = f"is not a label of the run ({', '.join(list(of)[:12])})"
    else:
        of = {identifier(name): at for at, name in enumerate(expected.class_names)}
        wrong = "is not in class_names"
        if not column.text:
            positions = {str(at): at for at in range(len(expected.class_names))}
            by_name, by_position = found <= set(of), found <= set(positions)
            if by_name and by_position and any(of[label] != positions[label] for label in found):
                raise DataError(
                    f"{column.place} holds {', '.join(sorted(found)[:4])}, which may be names of classes or their "
                    "numbers from 0: say it with class_names={id: name, ...}"
                )
            if not by_name or by_position:
                of, wrong = positions, f"is not a class id: give whole numbers from 0 to {len(positions) - 1}"
    return Meaning(expected.class_names, of, {label: wrong for label in found if label not in of})


def _as_values(
    x: NDArray[Any], path: str, key: str, start: int, problems: Problems
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A block as uint8 or float32, and which rows are finite; as `fedimb.data.sources.npz_file.read_values`."""
    if x.dtype == np.uint8:
        return x, np.ones(len(x), dtype=np.bool_)
    if x.dtype.kind != "f":
        raise DataError(f"{path} {key} is {x.dtype}; save it as uint8 (0 to 255) or float32")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32, copy=False)
    good = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    for row in np.flatnonzero(~good):
        problems.add(f"{path} {key}[{start + row}]", "NaN, infinite or too large for float32; impute or scale it")
    return x, good


def stream_rows(arrays: NpzFile, key: str, at_once: int) -> tuple[int, Iterator[NDArray[Any]]]:
    """Number of rows, and blocks of at most ``at_once`` of them.

    Raises:
        DataError: no such array, one without rows, Python objects, or a header that does not fit the data.
    """
    if key not in arrays.keys:
        likely = likely_arrays(arrays.keys) or f".{nearest(key, arrays.keys)}"
        raise DataError(f"{arrays.path} has no array '{key}'{likely}")
    place, own = f"{arrays.path} {key}", f"{arrays.own_name(key)}.npy"
    try:
        archive = zipfile.ZipFile(regular_file(arrays.path))
        member = archive.open(own)
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = read_header(member)
    except DAMAGE as error:
        raise DataError(f"{place} is damaged ({type(error).__name__}); copy the file again") from error
    if dtype.hasobject:
        raise DataError(f"{place} holds Python objects, which could run code when read; save numbers")
    if len(shape) < 2 or shape[0] == 0:
        raise DataError(f"{place} is {list(shape)}; give rows of values, [n, ...] with n of at least 1")
    # Before anything is allocated: a header may name any number of rows.
    bytes_per_row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    held = archive.getinfo(own).file_size
    if not 0 <= held - shape[0] * bytes_per_row < 1 << 16 or bytes_per_row == 0:
        raise DataError(f"{place} says it is {list(shape)} {dtype} but holds {held:,} bytes; write the file again")
    if by_column:  # its rows are not consecutive in the file
        member.close()
        whole = arrays[key]
        return shape[0], (whole[start : start + at_once] for start in range(0, shape[0], at_once))
    return shape[0], _blocks(archive, member, shape, dtype, at_once, place)


def _blocks(
    archive: zipfile.ZipFile, member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], at_once: int, place: str
) -> Iterator[NDArray[Any]]:
    bytes_per_row = int(np.prod(shape[1:])) * dtype.itemsize
    with archive, member:
        for start in range(0, shape[0], at_once):
            rows = min(at_once, shape[0] - start)
            try:
                data = member.read(rows * bytes_per_row)
            except DAMAGE as error:
                raise DataError(f"{place} is damaged ({type(error).__name__}); copy the file again") from error
            if len(data) < rows * bytes_per_row:
                raise DataError(f"{place} ends after row {start + len(data) // bytes_per_row}; copy the file again")
            yield np.frombuffer(data, dtype=dtype).reshape(rows, *shape[1:])
