"""How many rows of each pseudo-class a batch contains: equal shares, and what to do with the remainder.

FairFAL (Zong & Huang, arXiv 2603.10341), following its released code: b // C for each of the C classes, the remaining b
mod C one each to the largest buckets; a quota is capped by its bucket and the surplus is distributed round-robin in
order of bucket size. With b < C that rule only uses the largest buckets, the opposite of its aim; the policies
``random`` and ``rarest_labelled_first`` for the remainder are additions.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

Leftover = Literal["largest", "random", "rarest_labelled_first"]


def class_quota(
    sizes: Tensor,
    budget: int,
    leftover: Leftover = "largest",
    *,
    labelled: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Rows to ask for of each class.

    Args:
        sizes: [C] int64 rows in each bucket.
        budget: b, at least 0.
        leftover: who gets the b mod C remaining rows: the largest buckets, classes in random order, or those with the
            fewest labelled rows (ties to the lower class id). A full bucket comes last under every policy.
        labelled: [C] rows labelled so far, for ``rarest_labelled_first``.
        generator: for ``random``.

    Returns:
        [C] int64, none above its bucket, summing to min(b, sum of sizes).

    Raises:
        ValueError: no class, a negative budget, an unknown policy, or one whose input is missing.
    """
    if len(sizes) == 0 or budget < 0:
        raise ValueError(f"class_quota needs at least one class and a budget of at least 0; got {len(sizes)}, {budget}")
    base, rest = divmod(budget, len(sizes))
    order = _order(sizes, leftover, labelled, generator)
    order = order[(sizes[order] <= base).long().argsort(stable=True)]
    wanted = torch.full_like(sizes, base)
    wanted[order[:rest]] += 1
    quota = torch.minimum(wanted, sizes)
    by_size = sizes.argsort(descending=True, stable=True)
    surplus = min(budget, int(sizes.sum())) - int(quota.sum())
    while surplus > 0:
        room = by_size[quota[by_size] < sizes[by_size]][:surplus]
        # As many full turns at once as the fullest bucket allows: b may be thousands.
        turns = max(1, min(surplus // len(room), int((sizes - quota)[room].min())))
        quota[room] += turns
        surplus -= turns * len(room)
    return quota


def _order(sizes: Tensor, leftover: Leftover, labelled: Tensor | None, generator: torch.Generator | None) -> Tensor:
    if leftover == "largest":
        return sizes.argsort(descending=True, stable=True)
    if leftover == "random" and generator is not None:
        return torch.randperm(len(sizes), generator=generator)
    if leftover == "rarest_labelled_first" and labelled is not None and len(labelled) == len(sizes):
        return labelled.argsort(stable=True)
    if leftover in get_args(Leftover):
        raise ValueError(f"leftover={leftover!r} needs " + {"random": "a generator"}.get(leftover, "labelled [C]"))
    raise ValueError(f"leftover={leftover!r}: give one of {', '.join(get_args(Leftover))}")
