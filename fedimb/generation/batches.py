"""Which rows a generator's training step sees, and which of their conditions are dropped."""

import torch
from torch import Tensor

BALANCES = ("class", "rows")


def draw_batch(y: Tensor, n: int, balance: str, generator: torch.Generator) -> Tensor:
    """Rows of one training step, with replacement: int64 [n] positions into ``y``.

    Args:
        y: int64 [rows] class ids.
        balance: ``class``: pick one of the classes present uniformly, then one of its rows (a rare class is seen as
            often as a common one); ``rows``: pick rows uniformly.
    """
    if balance == "rows":
        return torch.randint(len(y), (n,), generator=generator)
    order = torch.argsort(y, stable=True)
    _, sizes = torch.unique(y, return_counts=True)  # sorted, so sizes and order agree
    starts = torch.cumsum(sizes, 0) - sizes
    classes = torch.randint(len(sizes), (n,), generator=generator)
    within = (torch.rand(n, generator=generator, dtype=torch.float64) * sizes[classes]).long()
    return order[starts[classes] + within]


def drop_conditions(ids: Tensor, null: int, rate: float, generator: torch.Generator) -> Tensor:
    """``ids`` int64 [n] with each replaced by ``null`` with probability ``rate``, for classifier-free guidance."""
    return torch.where(torch.rand(len(ids), generator=generator) < rate, null, ids)
