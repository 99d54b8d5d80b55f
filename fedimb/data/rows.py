"""Lists of rows, one per client, in two arrays: no Python object per client, so 100,000 clients are cheap."""

from collections.abc import Sequence
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class RowLists(Sequence[Rows]):
    """Reads like a list of int64 arrays; each item is a view.

    Args:
        rows: all lists concatenated, [n] int64.
        offsets: where each list starts, and where the last ends, [K + 1] int64, from 0 to n.
    """

    def __init__(self, rows: Rows, offsets: Rows) -> None:
        self.rows, self.offsets = rows, offsets

    @staticmethod
    def of(lists: Sequence[Rows]) -> "RowLists":
        """From separate arrays; a RowLists is returned unchanged."""
        if isinstance(lists, RowLists):
            return lists
        rows = np.concatenate([np.empty(0, np.int64), *lists]).astype(np.int64, copy=False)
        return RowLists(rows, np.cumsum([0, *map(len, lists)], dtype=np.int64))

    @staticmethod
    def by_owner(rows: Rows, owner: Rows, n: int) -> "RowLists":
        """``n`` sorted lists, from each row's client [n]."""
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))]).astype(np.int64)
        up, later = rows[1:] >= rows[:-1], owner[1:] > owner[:-1]
        if (later | (up & (owner[1:] == owner[:-1]))).all():  # usual: no sort
            return RowLists(rows, offsets)
        return RowLists(rows[np.argsort(owner, kind="stable") if up.all() else np.lexsort((rows, owner))], offsets)

    @staticmethod
    def empty(n: int) -> "RowLists":
        """``n`` empty lists."""
        return RowLists(np.zeros(0, np.int64), np.zeros(n + 1, np.int64))

    @cached_property
    def sizes(self) -> Rows:
        """Length of each list, [K] int64, read-only."""
        sizes = np.diff(self.offsets)
        sizes.flags.writeable = False
        return sizes

    def owners(self) -> Rows:
        """The client of each of `rows`, [n] int64."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Rows: ...
    @overload
    def __getitem__(self, index: slice) -> list[Rows]: ...
    def __getitem__(self, index: int | slice) -> Rows | list[Rows]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k = range(len(self))[index]  # negative indices and IndexError as for a list
        return self.rows[self.offsets[k] : self.offsets[k + 1]]
