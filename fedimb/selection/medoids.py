"""k-medoids: k points chosen so that the sum of all points' distances to the nearest of them is small.

FasterPAM (Schubert and Rousseeuw, "Fast and eager k-medoids clustering", Information Systems 2021): from k random
medoids, each point in turn replaces the best medoid if that lowers the sum; O(n^2) per pass. The
result is a local optimum: no single swap lowers the sum, unless the passes were used up.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


def k_medoids(distances: Tensor, count: int, generator: torch.Generator, passes: int = 20) -> Tensor:
    """FasterPAM on a distance matrix.

    Args:
        distances: [n, n] float, symmetric, 0 on the diagonal, any scale.
        count: medoids, 0..n.
        generator: draws the starting medoids.
        passes: maximum number of passes over all points; it stops when a pass swaps nothing.

    Returns:
        [count] int64 distinct positions, ascending.

    Raises:
        ValueError: ``count`` out of range.
    """
    n = len(distances)
    if not 0 <= count <= n:
        raise ValueError(f"k-medoids: cannot choose {count} of {n} points")
    start = torch.randperm(n, generator=generator)[:count]
    if count in (0, n):
        return start.sort().values
    found = _Clustering(distances.double().numpy(), start.numpy().copy())
    since = 0
    for candidate in torch.arange(n).repeat(passes).tolist():
        since = 0 if found.try_swap(candidate) else since + 1
        if since >= n:
            break
    return torch.from_numpy(np.sort(found.medoids))


class _Clustering:
    """Medoids, and for every point the nearest and second nearest medoid (second at infinity with one medoid)."""

    def __init__(self, distances: Floats, medoids: NDArray[np.int64]) -> None:
        self.distances, self.medoids = distances, medoids
        n = len(distances)
        self.first, self.second = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.near, self.far = np.zeros(n), np.zeros(n)
        self._assign(np.arange(n))
        self._losses()
        self.tolerance = 1e-12 * max(1e-300, float(self.near.sum()))

    def _assign(self, rows: NDArray[np.int64]) -> None:
        to = self.distances[np.ix_(rows, self.medoids)]
        line = np.arange(len(rows))
        self.first[rows] = to.argmin(1)
        self.near[rows] = to[line, self.first[rows]]
        to[line, self.first[rows]] = np.inf
        self.second[rows] = to.argmin(1)
        self.far[rows] = to[line, self.second[rows]]

    def _losses(self) -> None:
        """Increase of the sum when a medoid is removed without replacement: [k]."""
        self.loss = np.bincount(self.first, weights=self.far - self.near, minlength=len(self.medoids))

    def try_swap(self, candidate: int) -> bool:
        """Replace the best medoid by the candidate if that lowers the sum; returns whether it did."""
        if self.near[candidate] == 0:  # a medoid, or a copy of one
            return False
        to = self.distances[candidate]
        closer = to < self.near
        gain = float((to - self.near)[closer].sum())
        # Without its medoid a point moves to its second, or to the candidate if that is nearer.
        relief = np.where(closer, self.near - self.far, np.minimum(to - self.far, 0.0))
        if len(self.medoids) == 1:
            change = np.array([float(to.sum() - self.near.sum()) - gain])
        else:
            change = self.loss + np.bincount(self.first, weights=relief, minlength=len(self.medoids))
        given_up = int(change.argmin())
        if change[given_up] + gain >= -self.tolerance:
            return False
        self.medoids[given_up] = candidate
        self._update(given_up, to)
        return True

    def _update(self, place: int, to: Floats) -> None:
        lost = (self.first == place) | (self.second == place)
        nearest = ~lost & (to < self.near)
        self.second[nearest], self.far[nearest] = self.first[nearest], self.near[nearest]
        self.first[nearest], self.near[nearest] = place, to[nearest]
        between = ~lost & ~nearest & (to < self.far)
        self.second[between], self.far[between] = place, to[between]
        self._assign(np.flatnonzero(lost))
        self._losses()
