"""Which rows a generator's training step sees, and which of their conditions are dropped."""

import torch
from torch import Tensor

BALANCES = ("class", "rows")


def draw_batch(y: Tensor, n: int, balance: str, generator: torch.Generator, parts: Tensor | None = None) -> Tensor:
    """Rows of one training step, with replacement: int64 [n] positions into ``y``.

    Args:
        y: int64 [rows] class ids.
        balance: ``class``: pick one of the classes present uniformly, then one of its rows (a rare class is seen as
            often as a common one); ``rows``: pick rows uniformly.
        parts: int64 [rows], the row's part of its class, from 0 (`fedimb.generation.subclusters`): with ``class``, pick
            one of the class's parts uniformly, then one of its rows. None: classes are whole.
    """
    if balance == "rows":
        return torch.randint(len(y), (n,), generator=generator)
    cells = y if parts is None else y * (int(parts.max()) + 1) + parts
    order = torch.argsort(cells, stable=True)
    _, sizes = torch.unique(cells, return_counts=True)  # sorted, so sizes and order agree
    starts = torch.cumsum(sizes, 0) - sizes
    if parts is None:
        chosen = torch.randint(len(sizes), (n,), generator=generator)
    else:
        _, of_class = torch.unique_consecutive(y[order[starts]], return_counts=True)  # parts of each class present
        classes = torch.randint(len(of_class), (n,), generator=generator)
        first = torch.cumsum(of_class, 0) - of_class
        chosen = first[classes] + _below(of_class[classes], generator)
    return order[starts[chosen] + _below(sizes[chosen], generator)]


def _below(sizes: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform whole numbers [n] from 0 to sizes - 1."""
    return (torch.rand(len(sizes), generator=generator, dtype=torch.float64) * sizes).long()


def drop_conditions(ids: Tensor, null: int, rate: float, generator: torch.Generator) -> Tensor:
    """``ids`` int64 [n] with each replaced by ``null`` with probability ``rate``, for classifier-free guidance."""
    return torch.where(torch.rand(len(ids), generator=generator) < rate, null, ids)
