"""What the Mahalanobis gate is made of: sums of features, one covariance of all classes, limits of distances.

See `fedimb.strategies.mahalanobis`.
"""

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import DataError, RunFailed
from fedimb.models.heads import NEVER_FAR
from fedimb.privacy.secure_sum import to_fixed

_MOST = 2.0**40  # of a sum: in units of 2**-20 many clients' sums fit 63 bits
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def feature_sums(x: Floats, y: Integers, classes: int) -> Integers:
    """Features [n, d] and classes [n] -> rows by class [C], sums by class [C x d] and products [t], in units of
    2**-20."""
    sums = np.zeros((classes, x.shape[1]))
    np.add.at(sums, y, x)
    second = (x.T @ x)[np.triu_indices(x.shape[1])]
    values = np.concatenate([np.bincount(y, minlength=classes).astype(np.float64), sums.ravel(), second])
    if not (np.abs(values) < _MOST).all():
        raise DataError("strategy=mahalanobis: features are too large to be added up, or not finite: training diverged")
    return to_fixed(values)


def edges_of(width: int, bins: int) -> Floats:
    """Upper edges [bins - 1] of all bins but the last of a squared distance over ``width`` features: .05 to 100 for
    each."""
    edges: Floats = width * np.logspace(np.log10(0.05), 2, bins - 1)
    return edges


def distance_counts(x: Floats, y: Integers, means: Floats, root: Floats, edges: Floats) -> Integers:
    """How many rows of each class lie in each bin of the squared distance |R'(x - m)|^2 to its mean [C, bins].

    Args:
        x, y: features [n, d] and classes [n].
        means, root: m [C, d] and R [d, d].
        edges: see `edges_of`.
    """
    squared = (((x - means[y]) @ root) ** 2).sum(axis=1)
    at = np.searchsorted(edges, squared, side="left")
    counts = np.zeros((len(means), len(edges) + 1), dtype=np.int64)
    np.add.at(counts, (y, at), 1)
    return counts


def gaussians(sums: Floats, classes: int, width: int, shrinkage: float) -> tuple[Floats, Floats, Floats]:
    """Rows, sums and products of features, as the clients add them up -> rows [C], means [C, d] and a root [d, d].

    The root R of the precision of one covariance S for all classes: RR' = ((1 - s) S + s tr(S) / d I)^-1, S by the rows
    minus the classes that have any. A class without rows has the mean of all.

    Raises:
        RunFailed: no more rows than classes, or features that do not vary.
    """
    counts, by_class, rest = np.split(sums, [classes, classes * (width + 1)])
    by_class = by_class.reshape(classes, width)
    second = np.zeros((width, width))
    second[np.triu_indices(width)] = rest
    second = second + np.triu(second, 1).T
    means = np.where(
        counts[:, None] > 0, by_class / np.maximum(counts, 1)[:, None], by_class.sum(0) / max(counts.sum(), 1)
    )
    freedom = counts.sum() - (counts > 0).sum()
    scatter = second - (means * counts[:, None]).T @ means
    level = float(np.trace(scatter)) / width
    if freedom < 1 or not level > 0:
        raise RunFailed("strategy=mahalanobis: features of a class do not vary, so no distance can be measured")
    covariance = ((1 - shrinkage) * scatter + shrinkage * level * np.eye(width)) / freedom
    values, vectors = np.linalg.eigh(covariance)
    least = 1e-6 * values.max()  # sums are rounded: what varies less is not measured
    root: Floats = vectors / np.sqrt(np.maximum(values, least))
    return counts, means, root


def limits(counts: NDArray[np.int64], edges: Floats, quantile: float, min_count: int) -> Floats:
    """The limit of each class [C]: the lowest bin edge up to which at least ``quantile`` of its rows lie.

    `fedimb.models.heads.NEVER_FAR`, no gate, for a class of fewer than ``min_count`` rows, or whose quantile lies in
    the last bin, which has no edge.

    Args:
        counts: [C, bins] rows of each class by their squared distance.
        edges: [bins - 1] upper edges of all bins but the last.
    """
    rows = counts.sum(axis=1)
    reached = counts.cumsum(axis=1) >= quantile * rows[:, None]
    first = reached.argmax(axis=1)
    found = np.append(edges, NEVER_FAR)[first]
    return np.where(rows >= min_count, found, NEVER_FAR)
