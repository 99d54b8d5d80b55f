"""Every client gets an equal share of the rows, drawn at random: the easy case, for reference."""

import numpy as np
from numpy.typing import NDArray

from fedimb.data.quotas import deal_units, largest_remainder
from fedimb.data.rows import RowLists
from fedimb.data.units import group_units, rows_by_client
from fedimb.registry import register


@register("partition", "iid")
class Iid:
    """Shuffles, then assigns equal quotas (sizes differ by at most one row; with patients, by about one patient).

    Args:
        patients: [n] int64 passed by fedimb where the source names patients; a patient stays on one client.
    """

    def __init__(self, patients: NDArray[np.int64] | None = None) -> None:
        self.patients = patients

    def __call__(self, y: NDArray[np.int64], n_clients: int, rng: np.random.Generator) -> RowLists:
        """``n_clients`` sorted int64 lists of positions into ``y`` [n]; a list may be empty."""
        units = group_units(y, self.patients)
        order = rng.permutation(len(units.weight))
        client = np.empty(len(order), dtype=np.int64)
        client[order] = deal_units(units.weight[order], largest_remainder(np.full(n_clients, 1 / n_clients), len(y)))
        return rows_by_client(units.of_row, client, n_clients)
