"""Arrays of an .npz file, read without pickle; labels and values checked row by row."""

import math
import os
import zipfile
import zlib
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.labels import check_row, complete, none_class
from fedimb.data.problems import Problems
from fedimb.data.sources.files import regular_file
from fedimb.data.sources.table_target import in_order
from fedimb.errors import DataError, nearest

_MOST_IDS = 100_000  # a larger class id is a patient number or a hash, not a class
DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, MemoryError)
_DEFLATE_AT_MOST = 1032  # bytes from one compressed byte: zlib's limit
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpzFile:
    """An opened .npz: ``with NpzFile(path) as arrays``.

    Args:
        path: as given in the configuration and shown in messages.

    Raises:
        DataError: it is missing or not an .npz.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            opened = np.load(regular_file(path), allow_pickle=False)
        except DAMAGE as error:
            raise DataError(f"{path} is not an .npz file; write it with numpy.savez") from error
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is one array (.npy), not an .npz file; write it with numpy.savez")
        self._file = opened
        self.keys = tuple(opened.files)

    def __enter__(self) -> "NpzFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def __getitem__(self, key: str) -> NDArray[np.generic]:
        """One array. DataError if it is missing, damaged, or holds Python objects."""
        if key not in self.keys:
            raise DataError(f"{self.path} has no array '{key}'.{nearest(key, self.keys)}")
        archive = self._file.zip
        assert archive is not None, "read after the file was closed"
        try:
            check_size(archive, key)
            array: NDArray[np.generic] = self._file[key]
        except DAMAGE as error:
            if "Object arrays" in str(error):
                raise DataError(
                    f"{self.path} {key} holds Python objects, which could run code when read; save numbers or text"
                ) from error
            raise DataError(f"{self.path} {key} is damaged ({type(error).__name__}); copy the file again") from error
        except WrongSize as error:
            raise DataError(f"{self.path} {key}: {error}; write the file again with numpy.savez") from error
        return array


class WrongSize(Exception):
    """The header of an array claims more or less than the file holds."""


def check_size(archive: zipfile.ZipFile, key: str) -> None:
    """Compare an array's header with the bytes behind it, before numpy allocates what the header claims.

    Raises:
        WrongSize: they differ, or the archive claims more than its compressed bytes can hold.
        ValueError: not an array, or a kind of array that is not read here.
    """
    member = archive.getinfo(key if key in archive.namelist() else f"{key}.npy")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f".npy version {version}")
        shape, _, dtype = _HEADERS[version](file)
        held = member.file_size - file.tell()
    if dtype.hasobject:
        return  # refused by numpy, by its own message
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != held:
        raise WrongSize(f"its header says {dtype} {list(shape)}, {claimed:,} bytes, but the file holds {held:,}")
    packed = min(member.compress_size, os.stat(archive.filename).st_size if archive.filename else member.compress_size)
    if member.file_size > _DEFLATE_AT_MOST * packed + 1024:
        raise WrongSize(f"it says {member.file_size:,} bytes, more than its {packed:,} compressed bytes can hold")


def read_values(arrays: NpzFile, key: str, problems: Problems) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """x as uint8 or float32, and [n] bool: rows without NaN or infinity. The other rows are added to ``problems``.

    Raises:
        DataError: another type, or an array without rows.
    """
    x = arrays[key]
    if x.ndim < 2 or len(x) == 0:
        raise DataError(f"{arrays.path} {key} is {list(x.shape)}; give rows of values, [n, ...] with n of at least 1")
    if x.dtype == np.uint8:
        return x, np.ones(len(x), dtype=np.bool_)
    if x.dtype.kind != "f":
        raise DataError(f"{arrays.path} {key} is {x.dtype}; save it as uint8 (0 to 255) or float32")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is found below
        x = x.astype(np.float32, copy=False)
    good = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    for row in np.flatnonzero(~good):
        problems.add(f"{arrays.path} {key}[{row}]", "NaN, infinite or too large for float32; impute or scale it")
    return x, good


def read_labels(
    arrays: NpzFile, key: str, good: NDArray[np.bool_], class_names: list[str] | None, problems: Problems
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Labels and [n] bool: rows of ``good`` with usable labels. The other rows are added to ``problems``.

    Labels are [n], int64 class ids or text, or, if a row may have several, [n, C] uint8 of 0 and 1.

    Args:
        class_names: the class list; None: any whole number from 0, or any text.

    Raises:
        DataError: a type that is neither numbers nor text, or columns that do not match the class list.
    """
    n, raw = len(good), arrays[key]
    if raw.ndim == 2 and len(raw) == n and raw.shape[1] > 1:
        return _several(arrays, key, raw, good, class_names, problems)
    raw = per_row(arrays, key, n)
    if raw.dtype.kind == "U":
        ids: NDArray[Any] = raw
        wrong = raw == "" if class_names is None else ~np.isin(raw, class_names)
        reason = "is empty" if class_names is None else "is not in class_names"
    elif raw.dtype.kind in "iubf":
        number = raw.astype(np.float64)
        ids = np.where(np.isfinite(number) & (np.abs(number) < _MOST_IDS), number, -1).astype(np.int64)
        most = _MOST_IDS if class_names is None else len(class_names)
        wrong = (ids != number) | (ids < 0) | (ids >= most)
        reason = f"is not a class id: give whole numbers from 0{f' to {most - 1}' if class_names else ''}"
    else:
        raise DataError(f"{arrays.path} {key} is {raw.dtype}; give class ids as integers, or names as text")
    for row in np.flatnonzero(good & wrong):
        problems.add(f"{arrays.path} {key}[{row}]", f"label {raw[row].item()!r} {reason}")
    return ids, good & ~wrong


def _several(
    arrays: NpzFile,
    key: str,
    raw: NDArray[np.generic],
    good: NDArray[np.bool_],
    class_names: list[str] | None,
    problems: Problems,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """`labels` in columns: one class each."""
    if raw.dtype.kind not in "iubf":
        raise DataError(f"{arrays.path} {key} is {raw.dtype} {list(raw.shape)}; give 0 and 1, one column per class")
    names = class_names if class_names is not None else [str(c) for c in range(raw.shape[1])]
    complete(np.zeros((0, raw.shape[1]), np.uint8), names)  # refuses names that do not match the columns
    binary = (raw == 0) | (raw == 1)  # NaN is neither
    targets = np.where(binary, raw, 0).astype(np.uint8)
    usable = good & binary.all(axis=1)
    for row in np.flatnonzero(good & ~usable):
        c = int(np.flatnonzero(~binary[row])[0])
        problems.add(f"{arrays.path} {key}[{row}]", f"{raw[row, c].item()!r} in column {c} is neither 0 nor 1")
    none = none_class(names)
    if none is not None and none < raw.shape[1]:
        for row in np.flatnonzero(usable & (targets[:, none] == 1) & (targets.sum(axis=1) > 1)):
            at = f"{arrays.path} {key}[{row}]"
            problems.guard(at, partial(check_row, [names[c] for c in np.flatnonzero(targets[row])]))
            usable[row] = False
    return targets, usable


def per_row(arrays: NpzFile, key: str, n: int) -> NDArray[Any]:
    """An array [n]; [n, 1] is flattened. DataError for any other shape."""
    array = arrays[key]
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (n,):
        raise DataError(f"{arrays.path} {key} is {list(array.shape)} beside {n} rows; give one value per row")
    return array


def class_ids(
    found: NDArray[Any], names: list[str] | None
) -> tuple[NDArray[np.int64], NDArray[np.uint8] | None, tuple[str, ...]]:
    """Checked labels in the form of `SourceData`: (y, targets or None, class names)."""
    if found.ndim == 2:
        return complete(found, names if names is not None else [str(c) for c in range(found.shape[1])])
    y, class_names = as_ids(found, names)
    return y, None, class_names


def as_ids(found: NDArray[np.generic], names: list[str] | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Checked labels or sites (ids or text) to int64 ids and names: the given ones, else those in the data.

    Text is sorted; ids without names are named by their numbers, 0 to the largest.
    """
    if found.dtype.kind == "U":
        names = names if names is not None else in_order(str(name) for name in np.unique(found))
        order = np.argsort(names)
        return order[np.searchsorted(np.array(names), found, sorter=order)].astype(np.int64), tuple(names)
    if names is None:
        names = [str(i) for i in range(int(found.max()) + 1)]
    return found.astype(np.int64), tuple(names)
