"""Lists of rows, one per client, in two arrays: no Python object per client, so 100,000 clients are cheap."""

from collections.abc import Sequence
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

    @property
    def sizes(self) -> Rows:
        """Length of each list, [K] int64."""
        return np.diff(self.offsets)

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
