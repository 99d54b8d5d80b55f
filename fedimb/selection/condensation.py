"""Condense labelled rows into clusters of one class each, with few clusters where a class is compact (C2TC).

C2TC (arXiv 2602.21717) chooses how many clusters M_c each class gets, sum M_c = M, so that the sum over classes of the
squared distances to their centroids is smallest, and searches for these numbers by moving clusters between classes. Our
reading, without a search and without chance: from one cluster per class, the cluster is divided next whose best
division lowers that sum most, whatever its class, until there are M. A division cuts the rows where they are ordered
along the cluster's first principal direction (Boley, "Principal Direction Divisive Partitioning", Data Mining and
Knowledge Discovery 1998), at the place that lowers the sum most and leaves enough people on either side. No cluster is
therefore smaller than the floor; a one-row cluster's centroid is that row.
"""

import heapq
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_POWERS = 30  # of the covariance: the order along the direction is what counts, not its last digits
_FLAT = 1e-12


@dataclass(frozen=True)
class Clusters:
    """Clusters of one class each, in the order of their classes, then of their first rows.

    Attributes:
        rows: positions of each cluster's rows, ascending int64.
        labels: [m] int64 class of each.
        centres: [m, d] float64 means of their rows.
        people: [m] int64 distinct people in each; rows, if people are not given.
    """

    rows: tuple[Tensor, ...]
    labels: Tensor
    centres: Tensor
    people: Tensor

    @property
    def sizes(self) -> Tensor:
        """[m] int64 rows of each."""
        return torch.tensor([len(rows) for rows in self.rows], dtype=torch.int64)


def condense(
    points: Tensor, labels: Tensor, budget: int, floor: int = 1, people: Tensor | None = None, flat: bool = False
) -> Clusters:
    """Divide rows into at most ``budget`` clusters of one class each.

    Args:
        points: [n, d] float.
        labels: [n] int64 classes.
        budget: clusters wanted, at least 0. Fewer than the classes: those of the classes with most rows.
        floor: people that every cluster has, at least 1. A class with fewer has no cluster.
        people: [n] int64 who each row is of; None: every row is someone else's.
        flat: also divide clusters of identical rows, which lowers no sum: then there are ``budget`` clusters, if there
            are as many rows and the floor is 1.

    Returns:
        the clusters. Time O(n d) per level of divisions, memory O(n d).

    Example:
        >>> points = torch.tensor([[0.0], [0.0], [0.0], [5.0], [6.0], [9.0]])
        >>> found = condense(points, torch.tensor([0, 0, 0, 1, 1, 1]), budget=4)
        >>> found.labels.tolist(), found.centres[:, 0].tolist()
        ([0, 1, 1, 1], [0.0, 5.0, 6.0, 9.0])
    """
    values, classes = points.double().numpy(), labels.numpy()
    who = np.arange(len(classes)) if people is None else people.numpy()
    whole = [np.flatnonzero(classes == c).astype(np.int64) for c in np.unique(classes)]
    whole = [rows for rows in whole if len(np.unique(who[rows])) >= floor]
    open_ = sorted(whole, key=lambda rows: (-len(rows), int(rows[0])))[:budget]
    queue: list[tuple[float, int, Rows, Rows]] = []
    leaves = {int(rows[0]): rows for rows in open_}

    def offer(rows: Rows) -> None:
        if (found := divide(values[rows], who[rows], floor)) is not None and (flat or found[0] > 0):
            gain, order, cut = found
            heapq.heappush(queue, (-gain, int(rows[0]), np.sort(rows[order[:cut]]), np.sort(rows[order[cut:]])))

    if len(leaves) < budget:
        for rows in open_:
            offer(rows)
    while queue and len(leaves) < budget:
        _, whole_at, first, second = heapq.heappop(queue)
        del leaves[whole_at]
        for part in (first, second):
            leaves[int(part[0])] = part
            offer(part)
    ordered = sorted(leaves.values(), key=lambda rows: (int(classes[rows[0]]), int(rows[0])))
    centres = [values[rows].mean(axis=0) for rows in ordered]
    return Clusters(
        tuple(torch.from_numpy(rows) for rows in ordered),
        torch.tensor([int(classes[rows[0]]) for rows in ordered], dtype=torch.int64),
        torch.from_numpy(np.stack(centres)) if centres else points[:0].double(),
        torch.tensor([len(np.unique(who[rows])) for rows in ordered], dtype=torch.int64),
    )


def divide(points: Floats, people: Rows, floor: int) -> tuple[float, Rows, int] | None:
    """The best division of one cluster along its first principal direction.

    Args:
        points: [n, d], n >= 1.
        people: [n] who each row is of.
        floor: people on either side, at least 1.

    Returns:
        (by how much the sum of squared distances to the mean falls, 0 if no row differs; order of the rows [n];
        how many of them, in this order, are on the first side); None if no division leaves enough people.
    """
    n = len(points)
    centred = points - points.mean(axis=0)
    squares = (centred * centred).sum(axis=1)
    direction = centred[int(squares.argmax())]
    for _ in range(_POWERS):
        moved = (centred @ direction) @ centred
        length = float(np.linalg.norm(moved))
        if length == 0:
            break
        direction = moved / length
    order = np.argsort(centred @ direction, kind="stable").astype(np.int64)
    cuts = np.arange(1, n)
    if floor > 1:
        front, back = distinct_up_to(people[order]), distinct_up_to(people[order][::-1])[::-1]
        cuts = cuts[(front[:-1] >= floor) & (back[1:] >= floor)]
    if not len(cuts):
        return None
    sums = centred[order].cumsum(axis=0)[cuts - 1]  # of the first side; the other's is its negative, as the mean is 0
    gains = (sums * sums).sum(axis=1) * n / (cuts * (n - cuts))
    best = int(gains.argmax())
    gain = float(gains[best])
    return (gain if gain > _FLAT * float(squares.sum()) else 0.0), order, int(cuts[best])


def distinct_up_to(people: Rows) -> Rows:
    """[n]: how many different people there are up to and with each place.

    Example:
        >>> distinct_up_to(np.array([7, 7, 3, 7, 1])).tolist()
        [1, 1, 2, 2, 3]
    """
    new = np.zeros(len(people), dtype=np.int64)
    new[np.unique(people, return_index=True)[1]] = 1
    return new.cumsum()


def within_sum(points: Tensor, clusters: Clusters) -> float:
    """Sum over clusters of the squared distances of their rows to their centroid."""
    points = points.double()
    parts = zip(clusters.rows, clusters.centres, strict=True)
    return sum(float(((points[rows] - centre) ** 2).sum()) for rows, centre in parts)
