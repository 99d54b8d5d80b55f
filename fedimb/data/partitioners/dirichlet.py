"""Label skew: each class is spread over the clients by its own Dirichlet draw (Hsu, Qi and Brown 2019).

flwr-datasets' DirichletPartitioner is not used: it redraws until every client has some rows (at small alpha it gives up
after ten tries), rounds down, gives NaN if its gamma draws underflow, and needs a Hugging Face Dataset.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedimb.data.quotas import deal_units, dirichlet_shares, largest_remainder
from fedimb.data.rows import RowLists
from fedimb.data.units import group_units, rows_by_client
from fedimb.errors import ConfigError
from fedimb.registry import register


@register("partition", "dirichlet")
class Dirichlet:
    """Per class: shares ~ Dirichlet(alpha), rounded by largest remainder; shuffled rows are assigned.

    Every row is used exactly once and a client may stay empty: there is no redrawing until every client has rows, which
    would hang at small alpha.

    Args:
        alpha: >= 1e-6; small is skewed, 100 is near uniform.
        rounding: ``largest_remainder``; or ``floor``, as in many published scripts: shares are rounded down and the
            last client gets the remainder of every class, so it holds rare classes that were not drawn for it. For
            comparison, not for results.
        patients: [n] int64 passed by fedimb where the source names patients; a patient counts for the class
            most of their rows have and stays on one client.

    Example:
        >>> import numpy as np
        >>> y = np.repeat([0, 1, 2], [60, 30, 10])
        >>> lists = Dirichlet(alpha=0.5)(y, 3, np.random.default_rng(0))
        >>> [np.bincount(y[rows], minlength=3).tolist() for rows in lists]
        [[38, 0, 5], [19, 1, 1], [3, 29, 4]]
    """

    def __init__(
        self,
        alpha: float = 0.5,
        rounding: Literal["largest_remainder", "floor"] = "largest_remainder",
        patients: NDArray[np.int64] | None = None,
    ) -> None:
        if not (math.isfinite(alpha) and alpha >= 1e-6):
            raise ConfigError(f"partition 'dirichlet': alpha={alpha}: give a finite number of at least 1e-6")
        if rounding not in ("largest_remainder", "floor"):
            raise ConfigError(f"partition 'dirichlet': rounding={rounding!r}: give largest_remainder or floor")
        self.alpha = alpha
        self.quotas = largest_remainder if rounding == "largest_remainder" else floor_cut
        self.patients = patients

    def __call__(self, y: NDArray[np.int64], n_clients: int, rng: np.random.Generator) -> RowLists:
        """``n_clients`` sorted int64 lists of positions into ``y`` [n]; a list may be empty."""
        units = group_units(y, self.patients)
        client = np.empty(len(units.weight), dtype=np.int64)
        for c in np.unique(units.label):
            members = rng.permutation(np.flatnonzero(units.label == c))
            weight = units.weight[members]
            shares = dirichlet_shares(self.alpha, n_clients, rng)
            client[members] = deal_units(weight, self.quotas(shares, int(weight.sum())))
        return rows_by_client(units.of_row, client, n_clients)


def floor_cut(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """[K] int64 quotas rounded down, the last client gets the rest; arguments as for `largest_remainder`."""
    # 1e-9: 0.29 * 100 is 28.999999999999996; a whole share must not lose a row.
    quotas = np.floor(shares * total + 1e-9).astype(np.int64)
    quotas[-1] = total - quotas[:-1].sum()
    return quotas
