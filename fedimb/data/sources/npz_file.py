"""Arrays of an .npz file, read without pickle, under the names that the settings give; values checked row by row."""

import difflib
import logging
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.identifiers import in_order
from fedimb.data.problems import Problems
from fedimb.data.sources.files import regular_file
from fedimb.errors import DataError, nearest
from fedimb.shapes import may_be_signal

_ALIKE = 0.8  # from which an array's name is taken for a misspelt one: sites and site, patients and patient_id
log = logging.getLogger("fedimb")
DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, MemoryError)
_DEFLATE_AT_MOST = 1032  # bytes from one compressed byte: zlib's limit
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpzFile:
    """An opened .npz: ``with NpzFile(path) as arrays``.

    Args:
        path: as given in the configuration and shown in messages.
        names: what an array is called in the file, where that is not the name by which it is read: ``{"x": "data"}``;
            None: it is not read, whatever the file holds.

    Attributes:
        keys: names by which its arrays are read.

    Raises:
        DataError: it is missing or not an .npz, or has no array that ``names`` names.
    """

    def __init__(self, path: str, names: Mapping[str, str | None] | None = None) -> None:
        self.path, self._names = path, dict(names or {})
        try:
            opened = np.load(regular_file(path), allow_pickle=False)
        except DAMAGE as error:
            raise DataError(f"{path} is not an .npz file; write it with numpy.savez") from error
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is one array (.npy), not an .npz file; write it with numpy.savez")
        self._file = opened
        renamed = {own: key for key, own in self._names.items() if own is not None}
        if absent := next((own for own in renamed if own not in opened.files), None):
            raise DataError(
                f"{path} has no array '{absent}' (arrays: {renamed[absent]}).{nearest(absent, opened.files)}"
            )
        left = [own for own in opened.files if own not in renamed and own not in self._names]
        self.keys = (*renamed.values(), *left)

    def __enter__(self) -> "NpzFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def __getitem__(self, key: str) -> NDArray[np.generic]:
        """One array. DataError if it is missing, damaged, or holds Python objects."""
        if key not in self.keys:
            raise DataError(f"{self.path} has no array '{key}'.{nearest(key, self.keys)}")
        own = self.own_name(key)
        archive = self._file.zip
        assert archive is not None, "read after the file was closed"
        try:
            check_size(archive, own)
            array: NDArray[np.generic] = self._file[own]
        except DAMAGE as error:
            if "Object arrays" in str(error):
                raise DataError(
                    f"{self.path} {key} holds Python objects, which could run code when read; save numbers or text"
                ) from error
            raise DataError(f"{self.path} {key} is damaged ({type(error).__name__}); copy the file again") from error
        except WrongSize as error:
            raise DataError(f"{self.path} {key}: {error}; write the file again with numpy.savez") from error
        return array

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of an array, from its header alone; () if that cannot be read, of which `__getitem__` says more."""
        archive = self._file.zip
        assert archive is not None, "read after the file was closed"
        try:
            return _header(archive, self.own_name(key))[0]
        except DAMAGE:
            return ()

    def own_name(self, key: str) -> str:
        """What the array that is read as ``key`` is called in the file."""
        return self._names.get(key) or key

    def check_unread(self, wanted: Iterable[str]) -> None:
        """Refuse a misspelt array, and tell which arrays are not read.

        Args:
            wanted: all names by which arrays are read.

        Raises:
            DataError: the file has no such array and one whose name is much like it.
        """
        wanted = list(wanted)
        absent = [key for key in wanted if key not in self.keys and key not in self._names]
        unread = [key for key in self.keys if key not in wanted]
        for key in unread:
            if close := difflib.get_close_matches(key.casefold(), absent, n=1, cutoff=_ALIKE):
                raise DataError(
                    f"{self.path} holds an array '{key}', which is not read. Did you mean '{close[0]}'? Then give "
                    f"arrays={{{close[0]}: {key}}}, else arrays={{{close[0]}: null}}"
                )
        if unread:
            log.warning("%s: not read: %s (arrays={...} names arrays of other names)", self.path, ", ".join(unread))


class WrongSize(Exception):
    """The header of an array claims more or less than the file holds."""


def check_size(archive: zipfile.ZipFile, key: str) -> None:
    """Compare an array's header with the bytes behind it, before numpy allocates what the header claims.

    Raises:
        WrongSize: they differ, or the archive claims more than its compressed bytes can hold.
        ValueError: not an array, or a kind of array that is not read here.
    """
    member = _member(archive, key)
    shape, dtype, held = _header(archive, key)
    if dtype.hasobject:
        return  # refused by numpy, by its own message
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != held:
        raise WrongSize(f"its header says {dtype} {list(shape)}, {claimed:,} bytes, but the file holds {held:,}")
    packed = min(member.compress_size, os.stat(archive.filename).st_size if archive.filename else member.compress_size)
    if member.file_size > _DEFLATE_AT_MOST * packed + 1024:
        raise WrongSize(f"it says {member.file_size:,} bytes, more than its {packed:,} compressed bytes can hold")


def _member(archive: zipfile.ZipFile, key: str) -> zipfile.ZipInfo:
    return archive.getinfo(key if key in archive.namelist() else f"{key}.npy")


def _header(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """(shape, type, bytes behind the header) of an array. Raises ValueError for a kind that is not read here."""
    member = _member(archive, key)
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f".npy version {version}")
        shape, _, dtype = _HEADERS[version](file)
        return tuple(shape), dtype, member.file_size - file.tell()


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


def per_row(arrays: NpzFile, key: str, n: int) -> NDArray[Any]:
    """An array [n]; [n, 1] is flattened. DataError for any other shape."""
    array = arrays[key]
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (n,):
        raise DataError(f"{arrays.path} {key} is {list(array.shape)} beside {n} rows; give one value per row")
    return array


def as_ids(found: NDArray[np.generic], names: list[str] | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Checked labels or sites (ids or text) to int64 ids and names: the given ones, else those in the data, in order.

    With ``names``, whole numbers are positions in them.
    """
    if found.dtype.kind != "U" and names is not None:
        return found.astype(np.int64), tuple(names)
    found = found.astype(str)
    names = names if names is not None else in_order(str(name) for name in np.unique(found))
    order = np.argsort(names)
    return order[np.searchsorted(np.array(names), found, sorter=order)].astype(np.int64), tuple(names)


def read_names(arrays: NpzFile, key: str) -> list[str] | None:
    """An array of names [C]; None if the file has none. DataError if it is not text."""
    if key not in arrays.keys:
        return None
    names = arrays[key]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(f"{arrays.path} {key} is {names.dtype} {list(names.shape)}; give text, one name each")
    return [str(name) for name in names]


SIGNAL_KEYS = ("rate_hz", "channels", "origins", "recordings")


def says_signals(keys: Iterable[str], shape: Sequence[int]) -> str:
    """Why rows of x, an array of ``shape`` beside arrays ``keys``, are windows of signals [n, channels, length]; "" if
    they may be pictures [n, height, width]."""
    if len(shape) != 3:
        return ""
    if told := [key for key in SIGNAL_KEYS if key in keys]:
        return f"the file has {' and '.join(told)}"
    narrow = may_be_signal(tuple(shape[1:]))
    return f"pictures of {shape[1]} x {shape[2]} would be very narrow" if narrow else ""


def likely_arrays(keys: Iterable[str]) -> str:
    """How to name the arrays of a file that uses other usual names; "" if none is known."""
    held = {key.casefold(): key for key in keys}
    pairs = ((x, y) for x in ("x", "data", "features", "images", "inputs") for y in ("y", "label", "labels", "target"))
    found = next(((held[x], held[y]) for x, y in pairs if x in held and y in held), None)
    return "" if found is None else f"; here perhaps arrays={{x: {found[0]}, y: {found[1]}}}"
