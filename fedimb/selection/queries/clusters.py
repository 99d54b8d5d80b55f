"""k-means, and one row per cluster: shared by the rules that cluster.

Lloyd's algorithm from randomly chosen rows, as two matrix products per pass and without extra threads, so a seed gives
exactly the same result for any number of workers (a library's k-means may add in the order its threads finish).
"""

import torch
from torch import Tensor

_CELLS = 8_000_000  # scores per block, 32 MB of float32


def k_means(rows: Tensor, k: int, generator: torch.Generator, passes: int = 10) -> tuple[Tensor, Tensor]:
    """Clusters of rows by squared Euclidean distance.

    Args:
        rows: [n, d] float32, n >= 1.
        k: clusters; more than n gives n.
        generator: draws the rows that are the initial centres.
        passes: maximum number; it stops when no row moves.

    Returns:
        Each row's cluster [n] int64, and the centres [k, d] float32. A cluster that loses all rows keeps its centre, so
        some may be empty (rows that coincide).
    """
    k = min(k, len(rows))
    centres = rows[torch.randperm(len(rows), generator=generator)[:k]].clone()
    cluster = nearest_centre(rows, centres)
    for _ in range(passes):
        total = torch.zeros_like(centres).index_add_(0, cluster, rows)
        held = cluster.bincount(minlength=k)
        centres = torch.where(held[:, None] > 0, total / held.clamp_min(1)[:, None], centres)
        before, cluster = cluster, nearest_centre(rows, centres)
        if torch.equal(before, cluster):
            break
    return cluster, centres


def nearest_centre(rows: Tensor, centres: Tensor) -> Tensor:
    """The nearest centre of each row: [n, d], [k, d] -> [n] int64; ties to the first."""
    half = (centres * centres).sum(1) / 2
    blocks = rows.split(max(1, _CELLS // len(centres)))
    return torch.cat([torch.addmm(half, block, centres.T, alpha=-1).argmin(1) for block in blocks])


def best_of_each(cluster: Tensor, scores: Tensor) -> Tensor:
    """The row with the highest score in every non-empty cluster, best first; ties to the lower position.

    Args:
        cluster: [n] int64.
        scores: [n].

    Returns:
        int64 [number of non-empty clusters].
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[cluster[order].argsort(stable=True)]
    held = cluster[order]
    firsts = torch.ones_like(held, dtype=torch.bool)
    firsts[1:] = held[1:] != held[:-1]
    best = order[firsts].sort().values
    return best[scores[best].argsort(descending=True, stable=True)]


def topped_up(chosen: Tensor, scores: Tensor, count: int) -> Tensor:
    """``count`` positions: the chosen ones, then the highest scores among the others.

    Args:
        chosen: int64, distinct.
        scores: [n], n >= count.
        count: total number.
    """
    others = scores.argsort(descending=True, stable=True)
    return torch.cat([chosen, others[~torch.isin(others, chosen)]])[:count]
