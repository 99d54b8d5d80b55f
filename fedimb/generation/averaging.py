"""Averages the generators of several clients so that a rare class keeps its embedding row.

A class's embedding row is trained only by the clients that hold the class; averaged over all clients it is pulled back
to where it started, and under coupled weight decay to zero. So a class's row is weighted by the number of rows of that
class each client has, a domain's row by that domain's, and everything else (including the "unspecified" rows) by all
rows. It follows the recursion in docs/generators.md.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.errors import ConfigError, DataError

Arrays = dict[str, NDArray]


def average(
    states: Sequence[Mapping[str, NDArray]],
    class_counts: ArrayLike,
    domain_counts: ArrayLike,
    class_rows: Mapping[str, int],
    domain_rows: Mapping[str, int],
    before: Mapping[str, NDArray] | None = None,
) -> Arrays:
    """Average several generator states into one; sums are in float64, in the order given.

    The row of a class (or domain) that nobody holds stays as it is in ``before``, bit for bit: no client trained it.
    Without ``before`` it is the unweighted mean, which is the same if all clients were sent that row.

    Args:
        states: K states of the same layout.
        class_counts: [K, C] rows of each class a client trained on; domain_counts: [K, D].
        class_rows, domain_rows: `Generator.class_rows` and `Generator.domain_rows`.
        before: the state of which the clients were sent all or a part.

    Returns:
        Entries in the first state's dtypes; integers are rounded.

    Raises:
        ConfigError: no states, counts that do not fit them or the rows, or a row name that is not an entry.
        DataError: states with different entries or shapes, a negative count, a client without rows, or values that are
            not finite (the client is named by its position).
    """
    by_class, by_domain = np.asarray(class_counts, np.float64), np.asarray(domain_counts, np.float64)
    _check(states, by_class, by_domain, class_rows, domain_rows)
    totals = by_class.sum(1)
    merged: Arrays = {}
    for name, first in states[0].items():
        values = [np.asarray(state[name], np.float64) for state in states]
        mean = _weighted(values, totals)
        counts, n = (by_class, class_rows[name]) if name in class_rows else (by_domain, domain_rows.get(name, 0))
        for row in range(n):
            held = counts[:, row]
            if held.any() or before is None:
                mean[row] = _weighted([value[row] for value in values], held if held.any() else np.ones(len(states)))
            else:
                mean[row] = np.asarray(before[name][row], np.float64)
        dtype = np.asarray(first).dtype
        merged[name] = (np.rint(mean) if dtype.kind in "iub" else mean).astype(dtype)
    return merged


def _weighted(values: Sequence[NDArray[np.float64]], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean, exact where all values with weight agree: it averages the offsets from the first."""
    holders = [int(k) for k in np.flatnonzero(weights)]
    base = values[holders[0]]
    total = np.zeros_like(base)
    for k in holders:
        total = total + weights[k] * (values[k] - base)
    mean: NDArray[np.float64] = np.array(base + total / weights.sum())
    return mean


def _check(
    states: Sequence[Mapping[str, NDArray]],
    by_class: NDArray[np.float64],
    by_domain: NDArray[np.float64],
    class_rows: Mapping[str, int],
    domain_rows: Mapping[str, int],
) -> None:
    if not states:
        raise ConfigError("no generators to average: give at least one state")
    for what, counts, rows in (("class", by_class, class_rows), ("domain", by_domain, domain_rows)):
        if counts.ndim != 2 or len(counts) != len(states):
            raise ConfigError(f"{what} counts of shape {counts.shape} for {len(states)} states: give one row each")
        if not (counts >= 0).all():
            raise DataError(f"{what} counts hold a negative or undefined number: give whole numbers of rows")
        for name, n in rows.items():
            if name not in states[0] or n != counts.shape[1] or len(states[0][name]) < n:
                raise ConfigError(
                    f"'{name}' is to have {n} {what} rows, with {counts.shape[1]} {what} counts: no match"
                )
    if len(empty := np.flatnonzero(by_class.sum(1) == 0)):
        raise DataError(f"client {int(empty[0])} of {len(states)} trained its generator on no rows: leave it out")
    for k, state in enumerate(states):
        if {n: np.shape(v) for n, v in state.items()} != {n: np.shape(v) for n, v in states[0].items()}:
            raise DataError(
                f"client {k}'s generator has other entries or shapes than the first: build all with the same settings"
            )
        if bad := [name for name, value in state.items() if not np.isfinite(value).all()]:
            raise DataError(f"client {k}'s generator is not finite in '{bad[0]}': leave it out, lower its lr")
