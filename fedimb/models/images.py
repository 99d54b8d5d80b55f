"""What image models ask of their input."""

import torch
from torch import Tensor

from fedimb.errors import ConfigError


def image_shape(model: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width) or (channels, height, width) -> (channels, height, width).

    Raises:
        ConfigError: the data are no images.
    """
    if len(input_shape) == 2:
        return 1, input_shape[0], input_shape[1]
    if len(input_shape) == 3:
        return input_shape[0], input_shape[1], input_shape[2]
    raise ConfigError(
        f"model '{model}' reads images: expected an input shape (height, width) or (channels, height, width), "
        f"this data has {tuple(input_shape)}; use a model such as mlp or logistic"
    )


def as_images(x: Tensor) -> Tensor:
    """Grey images [n, h, w] or images [n, c, h, w] -> [n, c, h, w], channels last in memory.

    Measured against the usual order, forward and backward on one thread are 1.4 to 2 times as fast.
    """
    images = x.unsqueeze(1) if x.ndim == 3 else x
    return images.contiguous(memory_format=torch.channels_last)
