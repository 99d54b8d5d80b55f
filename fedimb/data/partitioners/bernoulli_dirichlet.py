"""Which client holds a class by coins, how much of it by a Dirichlet draw, row by row: the partition of FedCorr.

Xu et al., "FedCorr", CVPR 2022, section 4.1. The published code of Fed-GraB and FedLoGe descends from FedCorr's; with
``holds=1`` every client may hold every class.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedimb.data.quotas import dirichlet_shares
from fedimb.data.rows import RowLists
from fedimb.data.units import group_units, rows_by_client
from fedimb.errors import ConfigError
from fedimb.registry import register


@register("partition", "bernoulli_dirichlet")
class BernoulliDirichlet:
    """Per class: holders by independent coins, shares ~ Dirichlet(alpha) over them, each row to a holder by its share.

    `dirichlet` cuts a class by the shares; here rows are drawn one by one, so that a share of a rare class may come
    out as no row. A client may stay empty.

    Args:
        alpha: >= 1e-6; small is skewed, 100 is near uniform.
        holds: probability in (0, 1] that a client holds a class; a class that no client drew goes to one of them.
        patients: [n] int64 passed by fedimb where the source names patients; a patient counts for the class
            most of their rows have and stays on one client.
    """

    def __init__(self, alpha: float = 0.5, holds: float = 1.0, patients: NDArray[np.int64] | None = None) -> None:
        if not (math.isfinite(alpha) and alpha >= 1e-6):
            raise ConfigError(f"partition 'bernoulli_dirichlet': alpha={alpha}: give a finite number of at least 1e-6")
        if not 0 < holds <= 1:
            raise ConfigError(f"partition 'bernoulli_dirichlet': holds={holds}: give a probability above 0, at most 1")
        self.alpha, self.holds, self.patients = alpha, holds, patients

    def __call__(self, y: NDArray[np.int64], n_clients: int, rng: np.random.Generator) -> RowLists:
        """``n_clients`` sorted int64 lists of positions into ``y`` [n]; a list may be empty."""
        units = group_units(y, self.patients)
        client = np.empty(len(units.label), dtype=np.int64)
        for c in np.unique(units.label):
            members = np.flatnonzero(units.label == c)
            holders = np.flatnonzero(rng.random(n_clients) < self.holds)
            if len(holders) == 0:
                holders = rng.integers(n_clients, size=1)
            shares = dirichlet_shares(self.alpha, len(holders), rng)
            client[members] = rng.choice(holders, size=len(members), p=shares)
        return rows_by_client(units.of_row, client, n_clients)
