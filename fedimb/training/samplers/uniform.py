"""Rows drawn uniformly with replacement: the class frequencies of the data, and `class_balanced`'s control."""

import torch
from torch import Tensor

from fedimb.registry import register


@register("sampler", "uniform", unknown_labels=("cells", "coarse"))
class Uniform:
    """Instance-balanced sampling: in an epoch a row may occur several times or not at all."""

    def epoch(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Labels [n] int64 -> positions [n] int64."""
        if len(labels) == 0:
            return torch.empty(0, dtype=torch.int64)
        return torch.randint(len(labels), (len(labels),), generator=generator, device=labels.device)
