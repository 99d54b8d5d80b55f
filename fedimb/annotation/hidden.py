"""The true labels of a simulation's unlabelled rows, and how many of them were revealed.

Once `ClientData.hide_labels` was called, no view, no count and not even the store given to client code contains a label
that was not revealed; only this object has them, and it counts. This guards against mistakes, not against code that
opens the store's files itself: in a simulation the labels are on disk. At a site with unlabelled rows there is nothing
to hide.
"""

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fedimb.data.store import Store
from fedimb.errors import DataError

Rows = NDArray[np.int64]


class HiddenLabels:
    """The true labels of one client's training rows.

    Args:
        store: with its labels.
        rows: int64 rows of the store, distinct.

    Attributes:
        accesses: labels revealed so far, repeated ones counted again.
    """

    def __init__(self, store: Store, rows: Rows) -> None:
        self._rows = np.sort(rows)
        self._labels = np.array(store.y[self._rows], dtype=np.int64)
        self.accesses = 0

    def reveal(self, rows: Rows) -> Rows:
        """True labels [n] int64 of ``rows``, in their order. DataError for a row that is not one of the client's."""
        rows = np.asarray(rows, dtype=np.int64)
        foreign = rows[~np.isin(rows, self._rows)]
        if len(foreign):
            raise DataError(f"row {foreign[0]} is not a training row of this client; ask for rows of its view 'pool'")
        self.accesses += len(rows)
        return self._labels[np.searchsorted(self._rows, rows)]

    def __reduce__(self) -> NoReturn:
        raise TypeError("hidden labels do not leave their process")
