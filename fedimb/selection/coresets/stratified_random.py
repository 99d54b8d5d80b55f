"""Rows at random within each class, classes in proportion: the sample that changes no class share."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, ClasswiseRule


@register("coreset", "stratified_random")
class StratifiedRandom(ClasswiseRule):
    """Shares rounded by largest remainder, a row of every class held while the budget allows."""

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """The first ``count`` of a permutation."""
        return rows[torch.randperm(len(rows), generator=candidates.generator)[:count]]
