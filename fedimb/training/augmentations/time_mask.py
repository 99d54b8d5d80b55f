"""A stretch of time blanked in all channels: SpecAugment's time mask (Park et al., Interspeech 2019) on signals."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.shapes import signal_shape


@register("augmentation", "time_mask", tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse"))
class TimeMask:
    """One stretch of each window is set to ``fill``: its length is drawn evenly from 0 to ``fraction`` of the window,
    its start evenly from where it fits.

    Args:
        fraction: longest stretch, of the window, in [0, 1].
        fill: value, in the units of the inputs: 0 is the mean where channels are scaled.
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: a setting out of range; the data are not signals.
    """

    def __init__(self, fraction: float = 0.1, fill: float = 0.0, *, input_shape: tuple[int, ...]) -> None:
        signal_shape("augmentation", "time_mask", input_shape)
        self._most = int(in_range("augmentation 'time_mask'", "fraction", fraction, 0, 1) * input_shape[1])
        self.fill = in_range("augmentation 'time_mask'", "fill", fill, float("-inf"))

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Signals [b, channels, length] -> the same shape; see `fedimb.training.spec.Augmentation`."""
        length = torch.randint(self._most + 1, (len(x), 1), generator=generator, device=x.device)
        where = torch.rand(len(x), 1, generator=generator, device=x.device)
        start = (where * (x.shape[2] - length + 1)).long()
        time = torch.arange(x.shape[2], device=x.device)
        masked = ((time >= start) & (time < start + length)).unsqueeze(1)
        return torch.where(masked, torch.full_like(x, self.fill), x)
