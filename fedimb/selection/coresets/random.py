"""Rows at random, each as likely as any other: rare classes shrink with the rest, by chance to nothing."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, CoresetRule


@register("coreset", "random")
class Random(CoresetRule):
    """A uniform sample without replacement; with numbers per class given, one within each class."""

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """The first ``count`` of a permutation."""
        return rows[torch.randperm(len(rows), generator=candidates.generator)[:count]]
