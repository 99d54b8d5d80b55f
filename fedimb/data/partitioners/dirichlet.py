"""Label skew: each class is spread over the clients by its own Dirichlet draw (Hsu, Qi and Brown 2019)."""

import math

import numpy as np
from numpy.typing import NDArray

from fedimb.data.quotas import deal, dirichlet_shares, largest_remainder
from fedimb.data.units import group, rows_by_client
from fedimb.errors import ConfigError
from fedimb.registry import register


@register("partition", "dirichlet")
class Dirichlet:
    """Per class: shares ~ Dirichlet(alpha), made integer by largest remainder, shuffled rows dealt.

    Every row is used exactly once and a client may stay empty: no rejection until each has some (it hangs at
    small alpha) and no floor cut (it favours the last client).

    Args:
        alpha: >= 1e-6; small is skewed, 100 is near uniform.
        patients: [n] int64 passed by fedimb where the source names patients; a patient counts for the class
            most of their rows have and stays on one client.
    """

    def __init__(self, alpha: float = 0.5, patients: NDArray[np.int64] | None = None) -> None:
        if not (math.isfinite(alpha) and alpha >= 1e-6):
            raise ConfigError(f"partition 'dirichlet': alpha={alpha}: give a finite number of at least 1e-6")
        self.alpha = alpha
        self.patients = patients

    def __call__(self, y: NDArray[np.int64], n_clients: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """``n_clients`` sorted int64 lists of positions into ``y`` [n]; a list may be empty."""
        units = group(y, self.patients)
        client = np.empty(len(units.weight), dtype=np.int64)
        for c in np.unique(units.label):
            members = rng.permutation(np.flatnonzero(units.label == c))
            weight = units.weight[members]
            shares = dirichlet_shares(self.alpha, n_clients, rng)
            client[members] = deal(weight, largest_remainder(shares, int(weight.sum())))
        return rows_by_client(units.of_row, client, n_clients)
