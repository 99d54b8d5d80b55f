"""Random features: a fixed random layer, after which a linear head separates what is not linear in the inputs.

Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", NeurIPS 2007 (``cos``: they approximate a Gaussian
kernel); Cho and Saul, "Kernel Methods for Deep Learning", NeurIPS 2009 (``relu``: the arc-cosine kernel).
"""

import math
from typing import Literal

import torch
from torch import Tensor

from fedimb.encoders.base import Encoder
from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.seeds import Stream, torch_generator

_MOST = 2048
_BLOCK = 64


@register("encoder", "random_features")
class RandomFeatures(Encoder):
    """A fixed random layer: cos(Rx + u), or relu(Rx). For any data.

    Args:
        activation: cos | relu.
        dims: number of features; null: four times the inputs, at most 2048.
        scale: cos: of the rows of R, N(0, scale^2 / d): differences of about sqrt(d) / scale count as far apart.
        seed: of R and u, the same at every client.
        input_shape: of one row (given by fedimb).

    Raises:
        ConfigError: a size below 1, or a scale that is not above 0.
    """

    cached = False

    def __init__(
        self,
        activation: Literal["cos", "relu"] = "cos",
        dims: int | None = None,
        scale: float = 1.0,
        seed: int = 0,
        *,
        input_shape: tuple[int, ...],
    ) -> None:
        width = math.prod(input_shape)
        size = min(4 * width, _MOST) if dims is None else dims
        if size < 1 or not 0 < scale < math.inf or seed < 0:
            raise ConfigError(
                f"encoder 'random_features': dims={dims}, scale={scale}, seed={seed}: give at least 1, above 0, and at "
                "least 0"
            )
        generator = torch_generator(seed, Stream.METHOD, 5)
        self._activation = activation
        self._rows = torch.randn(size, width, generator=generator) * (scale / math.sqrt(width))
        self._phase = 2 * math.pi * torch.rand(size, generator=generator)
        self._key = f"random_features-1-{activation}-{size}-{scale:g}-{seed}-{width}"

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Inputs [n, *input_shape] float32 -> [n, dims] float32; blocks of one size, so that no batch changes a bit."""
        flat = x.flatten(1)
        padded = torch.zeros(-(-len(flat) // _BLOCK) * _BLOCK, flat.shape[1])
        padded[: len(flat)] = flat
        parts = [block @ self._rows.T for block in padded.split(_BLOCK)]
        turned = torch.cat(parts)[: len(flat)] if parts else flat.new_zeros((0, len(self._rows)))
        return torch.cos(turned + self._phase) if self._activation == "cos" else torch.relu(turned)

    def fingerprint(self) -> str:
        return self._key
