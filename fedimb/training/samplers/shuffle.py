"""Every row once per epoch, in random order."""

import torch
from torch import Tensor

from fedimb.registry import register


@register("sampler", "shuffle", unknown_labels=("cells", "coarse"))
class Shuffle:
    """A fresh permutation each epoch."""

    def epoch(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Labels [n] int64 -> the order of visit, positions [n] int64."""
        return torch.randperm(len(labels), generator=generator, device=labels.device)
