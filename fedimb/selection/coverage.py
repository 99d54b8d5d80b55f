"""Select rows that cover the others: k-centre, k-means and herding on points [n, d].

k-centre: the greedy 2-approximation of Gonzalez 1985, as in Sener and Savarese, "Active Learning for Convolutional
Neural Networks: A Core-Set Approach", ICLR 2018. Herding: Welling, ICML 2009; each step takes the row that brings the
mean of the chosen rows closest to the overall mean (an argmin; DeepCore's implementation takes the argmax).
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Distances = Callable[[Tensor], Tensor]
"""Positions [b] int64 -> squared distances [n, b] float of every point to these."""

_BLOCK = 64  # candidates whose distances are computed at once: one matrix product costs as much as a few of vectors
_CELLS = 4_000_000


def squared_distances(points: Tensor, others: Tensor) -> Tensor:
    """[n, d] and [m, d] -> [n, m] of their dtype, never below 0.

    Uses |a|^2 - 2 ab + |b|^2: rounding errors are relative to the lengths, so centre points that are far from 0 first.
    """
    squares = (points * points).sum(1, keepdim=True) + (others * others).sum(1)
    return torch.addmm(squares, points, others.T, alpha=-2).clamp_(min=0)


def nearest_squared(points: Tensor, others: Tensor) -> Tensor:
    """Squared distance of every point [n, d] to the nearest of others [m, d], m >= 1: [n], never n x m at once."""
    step = max(1, _CELLS // max(1, len(points)))
    parts = [squared_distances(points, others[i : i + step]).amin(1) for i in range(0, len(others), step)]
    return torch.stack(parts).amin(0)


def k_center_greedy(
    points: Tensor,
    count: int,
    anchors: Tensor | None = None,
    first: int | None = None,
    distances: Distances | None = None,
) -> Tensor:
    """Repeatedly choose the point farthest from the anchors and all points chosen so far.

    Gives the same points in the same order as the plain loop, but faster: the distances of the ``_BLOCK`` currently
    farthest points are computed in one product and used while the farthest point is among them. Time O(n d count),
    memory O(n _BLOCK).

    Args:
        points: [n, d] float.
        count: how many, 0..n.
        anchors: [a, d] points that count as already chosen, or None.
        first: position chosen first. None: with anchors the point farthest from them, else the point nearest to the
            mean.
        distances: squared distances between points that are not given as vectors; ``points`` is then used only for its
            length, ``first`` is required and anchors are not allowed.

    Returns:
        [count] int64 distinct positions in the order chosen; ties to the lower position.

    Raises:
        ValueError: ``count`` or ``first`` out of range, or ``distances`` with anchors or without ``first``.
    """
    n = len(points)
    if not 0 <= count <= n or (first is not None and not 0 <= first < n):
        raise ValueError(f"k-centre: cannot choose {count} of {n} points starting with {first}")
    if distances is not None and (first is None or anchors is not None):
        raise ValueError("k-centre: with `distances`, give `first` and no anchors: points are not given as vectors")
    if count == 0:
        return torch.zeros(0, dtype=torch.int64)
    nearest = torch.full((n,), torch.inf)
    if distances is None:
        mean = points.mean(0)
        points = points - mean
        if anchors is not None and len(anchors):
            nearest = nearest_squared(points, anchors - mean)
            first = int(nearest.argmax()) if first is None else first
        first = int((points * points).sum(1).argmin()) if first is None else first
    measure = distances or (lambda rows: squared_distances(points, points[rows]))
    return _greedy(nearest, int(first or 0), count, measure)


def _greedy(nearest: Tensor, position: int, count: int, measure: Distances) -> Tensor:
    chosen = torch.zeros(count, dtype=torch.int64)
    columns: dict[int, Tensor] = {}
    block = hits = 1
    for i in range(count):
        if position not in columns:
            # If the farthest point is rarely among those computed ahead, compute fewer ahead.
            block = min(_BLOCK, 2 * block) if 4 * hits >= block else max(1, block // 2)
            ahead = torch.cat([torch.tensor([position]), nearest.topk(min(block, len(nearest))).indices]).unique()
            columns = dict(zip(ahead.tolist(), measure(ahead).T.contiguous(), strict=True))
            hits = 0
        hits += 1
        nearest = torch.minimum(nearest, columns.pop(position))
        nearest[position] = -1.0  # below every distance: chosen once
        chosen[i] = position
        position = int(nearest.argmax())
    return chosen


def k_means(points: Tensor, count: int, generator: torch.Generator, iterations: int = 20) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from a k-means++ start (scikit-learn's).

    Args:
        points: [n, d] float, n >= 1.
        count: number of clusters, at least 1; at most n are used. Identical points can leave clusters empty.
        generator: seeds the start.

    Returns:
        (centres [k, d] of the points' dtype, cluster of each point [n] int64).
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    model = KMeans(min(count, len(points)), n_init=1, max_iter=iterations, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: see above
        clusters = model.fit_predict(points.numpy())
    return torch.from_numpy(model.cluster_centers_).to(points.dtype), torch.from_numpy(clusters).long()


def herd(points: Tensor, count: int) -> Tensor:
    """Greedy mean matching: the t-th choice minimises || mean of all - mean of the t chosen ||.

    Returns:
        [count] int64 distinct positions in the order chosen; ties to the lower position.

    Raises:
        ValueError: ``count`` out of range.
    """
    if not 0 <= count <= len(points):
        raise ValueError(f"herding: cannot choose {count} of {len(points)} points")
    centred = points.double() - points.double().mean(0)
    squares = (centred * centred).sum(1)
    total = torch.zeros(points.shape[1], dtype=torch.float64)
    chosen = torch.zeros(count, dtype=torch.int64)
    for i in range(count):
        # || sum + x ||^2 up to a constant: with the mean at 0 the divisor t changes no order
        position = int((squares + 2 * (centred @ total)).argmin())
        chosen[i] = position
        total += centred[position]
        squares[position] = torch.inf
    return chosen
