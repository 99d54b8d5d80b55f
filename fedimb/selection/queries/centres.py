"""Picking rows that lie apart: the greedy k-centre and the seeding of k-means++.

k-centre: Gonzalez 1985, for active learning Sener & Savarese, "Active Learning for Convolutional Neural Networks: A
Core-Set Approach", ICLR 2018, algorithm 1: always the row farthest from all centres. Seeding: Arthur & Vassilvitskii
2007: the next row is drawn in proportion to its squared distance to the nearest centre.

Both give exactly what the plain loop gives, without passing over all rows for every pick: distances only shrink, so an
old distance is an upper bound. Rows are brought up to date for many centres at once, as one matrix product.
"""

import torch
from torch import Tensor

from fedimb.selection.gradient_embeddings import Factored

_ACTIVE = 1024  # rows that are kept up to date between two passes over all; small enough for a processor's cache
_PENDING = 128  # draws between two passes
_FEW = 16  # picks from one pass: too few, so keep more rows up to date
_REJECTED = 16  # draws in a row that old distances misled: time to bring them up to date


def k_center(rows: Factored, count: int, anchors: Factored | None = None, first: int = 0) -> Tensor:
    """Greedy k-centre: again and again the row farthest from all anchors and all rows chosen.

    Args:
        rows: n rows to choose from.
        count: how many; more than n gives all n.
        anchors: centres that are there already.
        first: chosen first where there are no anchors.

    Returns:
        int64 [min(count, n)], distinct, in the order chosen. Of equally far rows the lower position; once every row
        left coincides with a centre, the lowest positions.
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
    """Distances with these centres added; -1 at the centres, which never come again, not even among equals."""
    at = torch.tensor(chosen)
    added = rows.nearest(rows.rows(at))
    added[at] = -1.0
    return added if near is None else torch.minimum(near, added)


def _farthest(rows: Factored, near: Tensor, count: int, width: int) -> list[int]:
    """At least one and up to ``count`` next picks, keeping only the ``width`` farthest rows up to date.

    It stops where a row outside, whose old distance is an upper bound, could be as far as the farthest inside.
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

    A draw by old distances is kept with probability new / old, which leaves exactly the wanted distribution.

    Args:
        rows: n rows.
        count: how many; more than n gives all n.
        generator: for the draws.
        first: drawn first.

    Returns:
        int64 [min(count, n)], distinct, in the order drawn. Once every row left coincides with one drawn, the others
        are equally likely.
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
        # Rounding may put the sum's very end beyond the last row; a row of weight 0 is never kept.
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
