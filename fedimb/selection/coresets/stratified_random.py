"""A random sample within each class that keeps the class proportions."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, ClasswiseRule


@register("coreset", "stratified_random")
class StratifiedRandom(ClasswiseRule):
    """Shares are rounded by largest remainder; every class of the client keeps a row while the budget allows."""

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """The first ``count`` of a permutation."""
        return rows[torch.randperm(len(rows), generator=candidates.generator)[:count]]
