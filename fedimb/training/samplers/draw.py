"""Draw rows by class, with replacement: shared by the balanced samplers."""

from collections.abc import Callable

import torch
from torch import Tensor


def draw_by_class(labels: Tensor, weight: Callable[[Tensor], Tensor], generator: torch.Generator) -> Tensor:
    """Draw n rows with replacement: first a class, then one of its rows uniformly.

    Args:
        labels: [n] int64.
        weight: rows per class present [k] float64, all > 0 -> weight of each class [k], not normalised.
        generator: every draw comes from it.

    Returns:
        Positions [n] int64.
    """
    if len(labels) == 0:
        return torch.empty(0, dtype=torch.int64, device=labels.device)
    _, classes, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    size = counts.double()
    drawn = torch.multinomial(weight(size), len(labels), replacement=True, generator=generator)
    within = torch.rand(len(labels), generator=generator, dtype=torch.float64, device=labels.device)
    by_class = torch.argsort(classes, stable=True)
    start = counts.cumsum(0) - counts
    return by_class[start[drawn] + (within * size[drawn]).long()]
