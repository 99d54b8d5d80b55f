"""A uniform random sample: rare classes shrink with the rest, possibly to nothing."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, CoresetRule


@register("coreset", "random")
class Random(CoresetRule):
    """A uniform sample without replacement; within each class if numbers per class are given."""

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """The first ``count`` of a permutation."""
        return rows[torch.randperm(len(rows), generator=candidates.generator)[:count]]
