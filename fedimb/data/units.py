"""Units that are never split: a patient with all their rows, or a single row if the source has no patients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.data.rows import RowLists


@dataclass(frozen=True, eq=False)
class Units:
    """Rows grouped into units.

    Attributes:
        of_row: [n] int64, the unit of each row.
        weight: [U] int64, rows per unit.
        label: [U] int64, the most frequent class of the unit's rows; ties to the lower class id.
    """

    of_row: NDArray[np.int64]
    weight: NDArray[np.int64]
    label: NDArray[np.int64]


def group_units(y: NDArray[np.int64], patients: NDArray[np.int64] | None) -> Units:
    """Group into units the rows with labels ``y`` [n]; ``patients`` [n] or None."""
    if patients is None:
        return Units(np.arange(len(y)), np.ones(len(y), dtype=np.int64), np.asarray(y))
    _, of_row = np.unique(patients, return_inverse=True)
    weight = np.bincount(of_row)
    # Count (unit, class) pairs sparsely: a dense patients x classes table would not fit for large cohorts.
    classes = int(y.max()) + 1
    pairs, counts = np.unique(of_row * classes + y, return_counts=True)
    unit, label = pairs // classes, pairs % classes
    order = np.lexsort((label, -counts, unit))
    first = np.unique(unit[order], return_index=True)[1]
    return Units(of_row.astype(np.int64), weight.astype(np.int64), label[order][first])


def rows_by_client(of_row: NDArray[np.int64], client: NDArray[np.int64], n: int) -> RowLists:
    """``n`` sorted int64 row lists from the client of each unit [U]."""
    return RowLists.by_owner(np.arange(len(of_row)), client[of_row], n)
