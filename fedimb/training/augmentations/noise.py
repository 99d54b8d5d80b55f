"""Gaussian noise on the inputs, of any shape."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range


@register("augmentation", "noise", tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse"))
class Noise:
    """x + std * N(0, 1), element by element, not clipped.

    Args:
        std: standard deviation, in the unit of the inputs as training sees them (after the source's scaling).

    Raises:
        ConfigError: std negative or not finite.
    """

    def __init__(self, std: float = 0.1) -> None:
        self.std = in_range("augmentation 'noise'", "std", std, 0)

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Inputs [b, *shape] -> the same shape and dtype; see `fedimb.training.spec.Augmentation`."""
        return x + self.std * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
