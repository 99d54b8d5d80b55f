"""Fixed random convolutions: a baseline for images that needs no file and no training.

Random filters, rectification and pooling preserve much of an image's structure (Jarrett et al., "What is the best
multi-stage architecture for object recognition?", ICCV 2009; Saxe et al., ICML 2011).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fedimb.encoders.base import Encoder
from fedimb.encoders.checks import images_expected
from fedimb.errors import ConfigError
from fedimb.models.images import as_images
from fedimb.registry import register
from fedimb.seeds import Stream, torch_generator

_EPS = 1e-5


@register("encoder", "random_conv")
class RandomConv(Encoder):
    """Fixed random convolutions of images.

    Two layers of 3 x 3 convolution, ReLU and 2 x 2 mean pooling; then the means of both layers over a grid, normalised.

    Each image is centred and scaled by its own mean and deviation first, so brightness does not count.

    Args:
        width: filters of the first layer; the second has twice as many.
        grid: means are taken over grid x grid cells: d = 3 x width x grid x grid.
        seed: of the filters, which must be the same at every client.
        input_shape: (height, width) or (channels, height, width) (given by fedimb).

    Raises:
        ConfigError: the data are not images, or a size below 1.
    """

    def __init__(self, width: int = 16, grid: int = 4, seed: int = 0, *, input_shape: tuple[int, ...]) -> None:
        channels, _, _ = images_expected("random_conv", input_shape)
        for key, value, least in (("width", width, 1), ("grid", grid, 1), ("seed", seed, 0)):
            if value < least:
                raise ConfigError(f"encoder 'random_conv': {key}={value}: give at least {least}")
        self.grid = grid
        self._key = f"random_conv-1-{width}-{grid}-{seed}-{channels}"
        generator = torch_generator(seed, Stream.METHOD)
        self._first = _filters(channels, width, generator)
        self._second = _filters(width, 2 * width, generator)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Images [n, *input_shape] float32 -> [n, d] float32 of unit length."""
        images = as_images(x)
        spread, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True, correction=0)
        low = _layer((images - mean) / (spread + _EPS), self._first)
        high = _layer(low, self._second)
        cells = [F.adaptive_avg_pool2d(level, self.grid).flatten(1) for level in (low, high)]
        return F.normalize(torch.cat(cells, dim=1), dim=1)

    def fingerprint(self) -> str:
        return self._key


def _filters(fan_in: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(weights, biases) of He's variance; the biases give a single-colour image a direction too."""
    weight = torch.randn(count, fan_in, 3, 3, generator=generator) * (2 / (9 * fan_in)) ** 0.5
    bias = 0.1 * torch.randn(count, generator=generator)
    return weight.contiguous(memory_format=torch.channels_last), bias


def _layer(images: Tensor, filters: tuple[Tensor, Tensor]) -> Tensor:
    out = F.relu(F.conv2d(images, *filters, padding=1))
    return F.avg_pool2d(out, 2) if min(out.shape[2:]) >= 2 else out
