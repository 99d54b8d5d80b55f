"""Signals moved in time: where a window begins is an accident of how it was cut."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.shapes import signal_shape


@register("augmentation", "time_shift", tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse"))
class TimeShift:
    """All channels of a window are moved by the same number of samples, drawn evenly from -most to most.

    The sample at the edge is repeated where nothing moves in: a signal that were rolled round would have a jump that no
    recording has. Not for windows that are aligned to an event, such as single heartbeats: there the place says the
    class.

    Args:
        fraction: largest shift, of the window, in [0, 1].
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: fraction out of range; the data are not signals.
    """

    def __init__(self, fraction: float = 0.1, *, input_shape: tuple[int, ...]) -> None:
        signal_shape("augmentation", "time_shift", input_shape)
        self._most = int(in_range("augmentation 'time_shift'", "fraction", fraction, 0, 1) * input_shape[1])

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Signals [b, channels, length] -> the same shape; see `fedimb.training.spec.Augmentation`."""
        shift = torch.randint(2 * self._most + 1, (len(x), 1), generator=generator, device=x.device) - self._most
        taken = (torch.arange(x.shape[2], device=x.device) - shift).clamp(0, x.shape[2] - 1)
        return x.gather(2, taken.unsqueeze(1).expand_as(x))
