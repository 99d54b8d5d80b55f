"""How many rows of each pseudo-class a batch asks for: equal shares, and what to do with what does not fit.

FairFAL (Zong & Huang, arXiv 2603.10341), as its released code has it: b // C for every one of the C classes, the b mod
C left over one each to the largest buckets, a quota above its bucket capped there and the surplus handed out
round-robin in order of bucket size. With b < C that rule asks only for the largest buckets, the opposite of its aim;
the policies ``random`` and ``rarest_labelled_first`` for the left over are ours.
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
        leftover: who gets one of the b mod C first: the largest buckets, classes in random order, or those with fewest
            labelled rows (ties: the lower class id). A bucket without room comes last under every policy.
        labelled: [C] rows labelled so far, for ``rarest_labelled_first``.
        generator: for ``random``.

    Returns:
        [C] int64, none above its bucket, summing to min(b, sum of sizes).

    Raises:
        ValueError: no class, a negative budget, an unknown policy, or one without what it needs.
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
        # As many whole turns at once as the fullest bucket allows: b may be thousands.
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
