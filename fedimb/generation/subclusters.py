"""Parts of a class that lie apart, so that a generator learns rare ones as well as common ones.

After ScaffAug (arXiv 2510.16306), which draws what a sample is conditioned on with a probability of 1 / frequency of
its sub-cluster. Generators here are conditioned on class and domain alone, so it is the rows of a training batch that
are drawn so (`fedimb.generation.batches.draw_batch`), and samples follow; sub-clusters are those of k-means on the
scaled rows.
"""

import torch
from torch import Tensor

from fedimb.selection.coverage import k_means, squared_distances


def subclusters(points: Tensor, y: Tensor, count: int, least: int, generator: torch.Generator) -> Tensor:
    """Divide each class by k-means into at most ``count`` parts of at least ``least`` rows.

    A part with fewer rows is dissolved, the smallest first, and its rows go to the nearest centre that is left: a few
    rows apart would otherwise be drawn as often as all others, and be learned by heart. A class with fewer than
    ``2 least`` rows stays whole.

    Args:
        points: [n, ...] float32 rows, scaled so that columns are comparable.
        y: [n] int64 class ids.
        count: parts per class, at least 1.
        least: rows per part, at least 1.
        generator: seeds k-means.

    Returns:
        [n] int64, the part within the class, numbered from 0.
    """
    parts = torch.zeros_like(y)
    flat = points.flatten(1)
    for c in y.unique().tolist():
        members = (y == c).nonzero().flatten()
        wanted = min(count, len(members) // least)
        if wanted > 1:
            parts[members] = _parts(flat[members], wanted, least, generator)
    return parts


def _parts(points: Tensor, count: int, least: int, generator: torch.Generator) -> Tensor:
    centres, found = k_means(points - points.mean(0), count, generator)
    distance = squared_distances(points - points.mean(0), centres)
    left = torch.arange(len(centres))
    while len(left) > 1:
        sizes = torch.bincount(found, minlength=len(centres))[left]
        if int(sizes.min()) >= least:
            break
        left = left[torch.arange(len(left)) != int(sizes.argmin())]
        found = left[distance[:, left].argmin(1)]
    return torch.unique(found, return_inverse=True)[1]
