"""Label skew at equal client sizes, so that size explains nothing: `dir_balance` of FairFAL's experiments.

No flwr-datasets partitioner fits: its DirichletPartitioner's ``self_balancing`` only caps sizes roughly.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedimb.data.quotas import deal_units, largest_remainder, log_dirichlet_shares
from fedimb.data.rows import RowLists
from fedimb.data.units import Units, group_units, rows_by_client
from fedimb.errors import ConfigError
from fedimb.registry import register

_PASSES = 5


@register("partition", "dir_balance")
class DirBalance:
    """Equal client sizes, different class mixes: every client's mix ~ Dirichlet(alpha); sizes differ by at most one
    row.

    P [K, C] with rows ~ Dirichlet(alpha); five passes of row then column normalisation; per class
    largest-remainder quotas of P[:, c]; then clients with too many rows give some to those with too few. Unlike
    `dirichlet`, which draws once per class, this draws once per client. The paper does not say which rows move:

    here the largest class first, so rare classes stay where they were drawn. P is computed in logs, so alpha 1e-3 gives
    no NaN, and draws come from fedimb's own stream (the released code fixes its seed, so every run has the same
    partition).

    Args:
        alpha: >= 1e-6; small is skewed, 100 is near uniform.
        patients: [n] int64 passed by fedimb where the source names patients; a patient counts for the class
            most of their rows have and stays on one client. Sizes then differ by at most the largest patient.
    """

    def __init__(self, alpha: float = 0.1, patients: NDArray[np.int64] | None = None) -> None:
        if not (math.isfinite(alpha) and alpha >= 1e-6):
            raise ConfigError(f"partition 'dir_balance': alpha={alpha}: give a finite number of at least 1e-6")
        self.alpha = alpha
        self.patients = patients

    def __call__(self, y: NDArray[np.int64], n_clients: int, rng: np.random.Generator) -> RowLists:
        """``n_clients`` sorted int64 lists of positions into ``y`` [n]; a list may be empty."""
        units = group_units(y, self.patients)
        classes, label = np.unique(units.label, return_inverse=True)
        totals = np.bincount(label, weights=units.weight).astype(np.int64)
        shares = _doubly_normalised(self.alpha, n_clients, len(classes), rng)
        drawn = np.stack([largest_remainder(shares[:, c], int(n)) for c, n in enumerate(totals)], axis=1)
        quotas = equal_sizes(drawn)
        client = np.empty(len(label), dtype=np.int64)
        for c in range(len(classes)):
            members = rng.permutation(np.flatnonzero(label == c))
            client[members] = deal_units(units.weight[members], quotas[:, c])
        _even_out(client, units, n_clients)
        return rows_by_client(units.of_row, client, n_clients)


def _doubly_normalised(alpha: float, clients: int, classes: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """P [K, C] float64 whose columns sum to 1."""
    log_p = np.stack([log_dirichlet_shares(alpha, classes, rng) for _ in range(clients)])
    for _ in range(_PASSES):
        log_p -= _log_sum(log_p, axis=1)
        log_p -= _log_sum(log_p, axis=0)
    p = np.exp(log_p)
    return p / p.sum(axis=0)


def _log_sum(logs: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    most = logs.max(axis=axis, keepdims=True)  # without it, exp may underflow to 0 in every cell
    return most + np.log(np.exp(logs - most).sum(axis=axis, keepdims=True))


def equal_sizes(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Move rows until clients are equal: ``counts`` [K, C] int64 with row sums that differ by one at most.

    Column sums are kept. Class by class, largest first: clients above the target size give what they have of it,
    clients below take in proportion to what they lack. Remainder rows stay with the largest clients.
    """
    counts = counts.copy()
    k, sizes = len(counts), counts.sum(axis=1)
    wanted = np.full(k, sizes.sum() // k)
    wanted[np.argsort(-sizes, kind="stable")[: sizes.sum() % k]] += 1
    over, under = np.maximum(sizes - wanted, 0), np.maximum(wanted - sizes, 0)
    for c in np.argsort(-counts.sum(axis=0), kind="stable"):
        give = np.minimum(over, counts[:, c])
        if not give.any():
            continue
        take = largest_remainder(under / under.sum(), int(give.sum()))
        counts[:, c] += take - give
        over, under = over - give, under - take
    return counts


def _even_out(client: NDArray[np.int64], units: Units, n_clients: int) -> None:
    """With whole patients quotas are missed: move the best-fitting unit from the largest to the smallest client while
    this helps.

    Changes ``client`` [U] in place. A unit lighter than the gap makes the sum of squared sizes smaller, so this
    ends; at the end no unit of the largest client is lighter than the gap to the smallest.
    """
    sizes = np.bincount(client, weights=units.weight, minlength=n_clients).astype(np.int64)
    while True:
        most, least = int(sizes.argmax()), int(sizes.argmin())
        gap = sizes[most] - sizes[least]
        movable = np.flatnonzero((client == most) & (units.weight < gap))
        if len(movable) == 0:
            return
        unit = movable[np.abs(2 * units.weight[movable] - gap).argmin()]
        client[unit] = least
        sizes[most] -= units.weight[unit]
        sizes[least] += units.weight[unit]
