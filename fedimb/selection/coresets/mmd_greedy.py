"""Maximum mean discrepancy: in each class, the rows whose distribution is closest to that of the whole class.

Greedy minimisation of MMD^2(S + {x}, D_c) with a Gaussian kernel on unit embeddings, bandwidth by the median heuristic
(Gretton et al., JMLR 2012); as used for replay memories. With a_x the sum of k(s, x) over the t - 1 rows chosen and m_x
the mean of k(x, .) over the class, the t-th choice is argmin a_x / t - m_x: kernel herding (Chen, Welling and Smola,
UAI 2010).
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, ClasswiseRule
from fedimb.selection.coverage import squared_distances

_SAMPLE = 1000  # rows used for the median
_BLOCK = 1024


def median_bandwidth(points: Tensor, generator: torch.Generator) -> float:
    """Squared bandwidth: the median squared distance between different rows, of at most 1,000 drawn rows; 1 if that is
    0."""
    if len(points) > _SAMPLE:
        points = points[torch.randperm(len(points), generator=generator)[:_SAMPLE]]
    between = squared_distances(points, points)[tuple(torch.triu_indices(len(points), len(points), 1))]
    median = float(between.median()) if len(between) else 0.0
    return median if median > 1e-12 else 1.0


def mmd_greedy(points: Tensor, count: int, bandwidth: float) -> Tensor:
    """[n, d] -> [count] int64 distinct positions in the order chosen, kernel exp(-|a - b|^2 / (2 bandwidth)).

    O(n^2 d) once and O(n d) per choice; memory O(n) and blocks of n x 1024.
    """

    def kernel(others: Tensor) -> Tensor:
        return squared_distances(points, others).mul_(-0.5 / bandwidth).exp_()

    likeness = torch.zeros(len(points))
    for start in range(0, len(points), _BLOCK):
        likeness += kernel(points[start : start + _BLOCK]).sum(1)
    likeness /= len(points)
    near = torch.zeros(len(points))
    chosen = torch.zeros(count, dtype=torch.int64)
    for t in range(count):
        position = int((near / (t + 1) - likeness).argmin())
        chosen[t] = position
        near += kernel(points[position : position + 1])[:, 0]
        near[position] = torch.inf
    return chosen


@register("coreset", "mmd_greedy")
class MMDGreedy(ClasswiseRule):
    """Greedy MMD within each class, with a bandwidth per class."""

    needs = frozenset({"embeddings"})

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """In the order chosen."""
        points = candidates.given("embeddings")[rows].float()
        return rows[mmd_greedy(points, count, median_bandwidth(points, candidates.generator))]
