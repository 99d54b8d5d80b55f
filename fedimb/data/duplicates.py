"""Rows that occur more than once: identical rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.rows import Rows

_CHUNK_BYTES = 1 << 24  # of x held in memory at a time


def exact_groups(x: NDArray[Any]) -> Rows:
    """[n] int64, for each row of ``x`` the first row that is identical to it: rows with the same number are equal.

    Rows that hash alike are compared byte for byte. NaN equals NaN and -0.0 equals 0.0.

    Args:
        x: [n, ...] numbers of any dtype and row shape; a memory map is read a few megabytes at a time.

    Example:
        >>> exact_groups(np.array([[1.0, 2.0], [3.0, np.nan], [1.0, 2.0], [3.0, np.nan]]))
        array([0, 1, 0, 1])
    """
    n = len(x)
    if n == 0 or x[0].size == 0:
        return np.zeros(n, np.int64)
    hashes = np.empty(n, np.int64)
    for part in _chunks(x, np.arange(n)):
        values = _comparable(x[part[0] : part[-1] + 1])
        hashes[part] = [hash(row) for row in values.view(f"V{values.itemsize * values.shape[1]}").ravel().tolist()]
    group = np.arange(n)
    pending = group
    while len(pending):  # once more only if two different rows have the same hash
        _, first, of_row = np.unique(hashes[pending], return_index=True, return_inverse=True)
        leader = pending[first][of_row]
        later = np.flatnonzero(leader != pending)
        same = np.zeros(len(later), dtype=np.bool_)
        for part in _chunks(x, np.arange(len(later))):
            rows = later[part]
            same[part] = (_comparable(x[pending[rows]]) == _comparable(x[leader[rows]])).all(axis=1)
        group[pending[later[same]]] = leader[later[same]]
        pending = pending[later[~same]]
    return group


def _chunks(x: NDArray[Any], rows: Rows) -> Iterator[Rows]:
    """Consecutive parts of ``rows`` whose values take about `_CHUNK_BYTES`."""
    step = max(1, _CHUNK_BYTES // max(1, x[0].nbytes))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _comparable(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """[m, bytes of a row] uint8, equal for equal rows: one NaN, one zero."""
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
    if flat.dtype.kind == "f":
        flat = flat + 0.0  # a copy; -0.0 becomes 0.0
        flat[np.isnan(flat)] = np.nan
    return flat.view(np.uint8)
