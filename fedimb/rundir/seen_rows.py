"""Which new rows are ones that a run has used, found by their contents: a file may be cut, shuffled or converted."""

import numpy as np
from numpy.typing import NDArray

from fedimb.data.federation import Federation

_DISTINCT = 0.9  # share of the run's rows that must differ from each other for equal rows to mean anything
_AT_ONCE = 4096


class SeenRows:
    """Counts new rows that equal some of a run's.

    Args:
        federation: of the run.
        rows: [m], of its store.

    Attributes:
        count: rows found so far.
        total: rows looked at so far.

    Raises:
        DataError: the run's rows are gone.
    """

    def __init__(self, federation: Federation, rows: NDArray[np.int64]) -> None:
        store, rows = federation.store, np.sort(rows)
        parts = [_hashes(np.asarray(store.x[rows[i : i + _AT_ONCE]])) for i in range(0, len(rows), _AT_ONCE)]
        known = np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
        # Where equal rows are usual, as in a table of a few flags, they prove nothing.
        self._known = known if len(known) >= _DISTINCT * len(rows) else known[:0]
        self.count = self.total = 0

    def add(self, x: NDArray[np.generic]) -> None:
        """Count a batch of new rows [m, *shape], as their source holds them."""
        self.total += len(x)
        if len(self._known):
            new = _hashes(x)
            at = np.minimum(np.searchsorted(self._known, new), len(self._known) - 1)
            self.count += int((self._known[at] == new).sum())


def _hashes(x: NDArray[np.generic]) -> NDArray[np.int64]:
    """One number per row, equal for equal rows."""
    return np.array([hash(row.tobytes()) for row in np.ascontiguousarray(x)], dtype=np.int64)
