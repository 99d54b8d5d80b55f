"""Mutual information of each column with the class, from counts: exact over clients, since counts add up."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri


def binned(x: ArrayLike, bins: int) -> NDArray[np.int64]:
    """The bin of each value: between the quantiles 1/bins, 2/bins, ... of a normal distribution around 0; its shape.

    On a column that was scaled to mean 0 and deviation 1, bins are then about even. 0 and 1, an indicator, lie in
    different bins if there are at least three.

    Example:
        >>> binned([-9.0, -0.1, 0.1, 9.0], 4).tolist()
        [0, 1, 2, 3]
    """
    edges = ndtri(np.arange(1, bins) / bins)
    return np.searchsorted(edges, np.asarray(x, dtype=np.float64), side="right").astype(np.int64)


def bin_counts(x: ArrayLike, y: ArrayLike, n_classes: int, bins: int) -> NDArray[np.int64]:
    """Rows x [n, F] and classes y [n] -> how many rows of each class lie in each bin of each column [C, F, bins]."""
    at = binned(x, bins)
    found = np.zeros((n_classes, at.shape[1], bins), dtype=np.int64)
    np.add.at(found, (np.asarray(y)[:, None], np.arange(at.shape[1]), at), 1)
    return found


def mutual_information(counts: ArrayLike) -> NDArray[np.float64]:
    """Counts [C, F, bins] -> mutual information of each column's bin with the class [F], in nats, at least 0.

    Cover and Thomas, "Elements of Information Theory", section 2.3, of the empirical distribution. Zeros without rows.

    Example:
        >>> mutual_information([[[2, 0], [1, 1]], [[0, 2], [1, 1]]]).round(4).tolist()
        [0.6931, 0.0]
    """
    joint = np.asarray(counts, dtype=np.float64)
    total = joint.sum(axis=(0, 2))[None, :, None]
    p = joint / np.maximum(total, 1)
    alone = p.sum(axis=2, keepdims=True) * p.sum(axis=0, keepdims=True)
    terms = p * np.log(np.where(p > 0, p, 1) / np.where(alone > 0, alone, 1))
    found: NDArray[np.float64] = np.maximum(terms.sum(axis=(0, 2)), 0)
    return found


def largest(values: ArrayLike, keep: int) -> NDArray[np.bool_]:
    """[F] bool: the ``keep`` largest; ties to the earlier column."""
    order = np.argsort(-np.asarray(values, dtype=np.float64), kind="stable")
    found = np.zeros(len(order), dtype=bool)
    found[order[:keep]] = True
    return found
