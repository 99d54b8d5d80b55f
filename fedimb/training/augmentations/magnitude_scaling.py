"""Signals made larger or smaller, as by a sensor that sits differently (Um et al., ICMI 2017)."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.shapes import signal_shape


@register("augmentation", "magnitude_scaling", tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse"))
class MagnitudeScaling:
    """Each channel of each window times a number of its own, drawn from N(1, std).

    Args:
        std: standard deviation of the factor; 0 changes nothing. From 0.3 on some factors are negative: the signal is
            turned over.
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: std negative or not finite; the data are not signals.
    """

    def __init__(self, std: float = 0.1, *, input_shape: tuple[int, ...]) -> None:
        signal_shape("augmentation", "magnitude_scaling", input_shape)
        self.std = in_range("augmentation 'magnitude_scaling'", "std", std, 0)

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Signals [b, channels, length] -> the same shape; see `fedimb.training.spec.Augmentation`."""
        drawn = torch.randn(x.shape[0], x.shape[1], 1, generator=generator, dtype=x.dtype, device=x.device)
        return x * (1 + self.std * drawn)
