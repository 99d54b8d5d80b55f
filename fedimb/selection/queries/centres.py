"""Choose rows that are far apart: greedy k-centre and k-means++ seeding.

k-centre: Gonzalez 1985, for active learning Sener & Savarese, "Active Learning for Convolutional Neural Networks: A
Core-Set Approach", ICLR 2018, algorithm 1: always the row farthest from all centres. Seeding: Arthur & Vassilvitskii
2007: the next row is drawn in proportion to its squared distance to the nearest centre.

Both give exactly the result of the plain loop, without passing over all rows for every pick: distances only shrink, so
an old distance is an upper bound. Rows are updated for many centres at once, as one matrix product.
"""

import torch
from torch import Tensor

from fedimb.selection.gradient_embeddings import Factored

_ACTIVE = 1024  # rows that are kept up to date between two full passes; small enough for the processor's cache
_PENDING = 128  # draws between two passes
_FEW = 16  # picks from one pass: too few, so keep more rows up to date
_REJECTED = 16  # consecutive draws rejected because of old distances: time to update them


def k_center(rows: Factored, count: int, anchors: Factored | None = None, first: int = 0) -> Tensor:
    """Greedy k-centre: repeatedly choose the row farthest from all anchors and all chosen rows.

    Args:
        rows: n rows to choose from.
        count: number of rows; more than n gives all n.
        anchors: existing centres.
        first: chosen first if there are no anchors.

    Returns:
        int64 [min(count, n)], distinct, in the order chosen. Ties go to the lower position; once every remaining row
        coincides with a centre, the lowest positions are taken.
    """
    count = min(count, len(rows))
    if count == 0:
        return torch.zeros(0, dtype=torch.int64)
    chosen: list[int] = []
    near = torch.zeros(0)
    if anchors is not None and len(anchors) > 0:
        near = rows.nearest(anchors)
    else:
        chosen, near = [first], _nearer(rows, None, [first])
    width = _ACTIVE
    while len(chosen) < count:
        if not bool(near.max() > 0):
            left = (near == 0).nonzero().flatten()[: count - len(chosen)]
            return torch.cat([torch.tensor(chosen, dtype=torch.int64), left])
        fresh = _farthest(rows, near, count - len(chosen), width)
        chosen += fresh
        near = _nearer(rows, near, fresh)
        if len(fresh) < _FEW:
            width *= 2
    return torch.tensor(chosen)


def _nearer(rows: Factored, near: Tensor | None, chosen: list[int]) -> Tensor:
    """Distances with these centres added; -1 at the centres, which are never chosen again, not even in ties."""
    at = torch.tensor(chosen)
    added = rows.nearest(rows.rows(at))
    added[at] = -1.0
    return added if near is None else torch.minimum(near, added)


def _farthest(rows: Factored, near: Tensor, count: int, width: int) -> list[int]:
    """At least one and up to ``count`` next picks, keeping only the ``width`` farthest rows up to date.

    It stops when a row outside, whose old distance is an upper bound, could be as far as the farthest inside.
    """
    picks = [int(near.argmax())]
    if len(rows) > width:
        far, at = near.topk(width + 1)
        bound, active = max(float(far[-1]), 0.0), at[:-1].sort().values
    else:
        bound, active = 0.0, torch.arange(len(rows))
    inside, held = rows.rows(active), near[active]
    while len(picks) < count:
        held = torch.minimum(held, inside.squared_distances(rows.rows(torch.tensor(picks[-1:])))[:, 0])
        held[active == picks[-1]] = -1.0
        best = int(held.argmax())
        if held[best] <= bound:
            break
        picks.append(int(active[best]))
    return picks


def seed_k_means(rows: Factored, count: int, generator: torch.Generator, first: int) -> Tensor:
    """Rows drawn one by one, each in proportion to its squared distance to the nearest one drawn before.

    A draw by old distances is accepted with probability new / old, which gives exactly the target distribution.

    Args:
        rows: n rows.
        count: number of rows; more than n gives all n.
        generator: for the draws.
        first: drawn first.

    Returns:
        int64 [min(count, n)], distinct, in the order drawn. Once every remaining row coincides with a drawn one, the
        others are equally likely.
    """
    count = min(count, len(rows))
    if count == 0:
        return torch.zeros(0, dtype=torch.int64)
    chosen, fresh = [first], [first]
    near = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    while len(chosen) < count:
        near = torch.minimum(near, rows.nearest(rows.rows(torch.tensor(fresh))))
        near[torch.tensor(chosen)] = 0.0
        mass = near.cumsum(0)
        if not bool(mass[-1] > 0):
            mixed = torch.randperm(len(rows), generator=generator)
            left = mixed[~torch.isin(mixed, torch.tensor(chosen))][: count - len(chosen)]
            return torch.cat([torch.tensor(chosen), left])
        fresh = _draws(rows, near, mass, min(_PENDING, count - len(chosen)), generator)
        chosen += fresh
    return torch.tensor(chosen)


def _draws(rows: Factored, near: Tensor, mass: Tensor, count: int, generator: torch.Generator) -> list[int]:
    """At least one and up to ``count`` draws, all by the old distances ``near`` and their running sum ``mass``."""
    drawn: list[int] = []
    rejected = 0
    while not drawn or (len(drawn) < count and rejected < _REJECTED):
        where, keep = torch.rand(2, generator=generator, dtype=torch.float64)
        # Rounding may put the end of the sum beyond the last row; a row of weight 0 is never accepted.
        at = min(int(torch.searchsorted(mass, where * mass[-1], right=True)), len(rows) - 1)
        new = near[at]
        if drawn:
            here = rows.rows(torch.tensor([at]))
            new = torch.minimum(new, here.squared_distances(rows.rows(torch.tensor(drawn))).amin())
        if keep * near[at] < new:
            drawn.append(at)
            rejected = 0
        else:
            rejected += 1
    return drawn
