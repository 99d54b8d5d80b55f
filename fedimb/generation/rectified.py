"""Rectified flow (Liu, Gong, Liu, ICLR 2023) with logit-normal levels (Esser et al., ICML 2024), over any network.

z_s = (1 - s) z + s e with e ~ N(0, 1); the network learns the velocity e - z; sampling follows it from s = 1 to 0 by
Euler's rule. Levels are s = sigmoid(N(0, 1)). A network is called as
``net(z [n, ...], 1000 s [n], y [n], d [n])``.
"""

import torch
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.generation.base import Generator


class RectifiedFlow(Generator):
    """Base class of rectified-flow generators; a subclass builds ``net``.

    Args:
        steps: Euler steps per sample.
        guidance: w of classifier-free guidance, ``(1 + w) v(y, d) - w v(unspecified)``: w above 0 doubles the cost and
            makes samples more typical and less diverse (a classifier trained on them does worse).

    Raises:
        ConfigError: steps below 1 or guidance below 0.
    """

    net: nn.Module

    def __init__(self, n_classes: int, n_domains: int, shape: tuple[int, ...], steps: int, guidance: float) -> None:
        super().__init__(n_classes, n_domains, shape)
        check_sampling(steps, guidance)
        self.steps, self.guidance = steps, guidance

    def draw_levels(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, generator=generator, device=generator.device).sigmoid()

    def _losses(self, z: Tensor, y: Tensor, d: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
        noise = self._noise(z, generator)
        s = levels.view(-1, *[1] * (z.ndim - 1))
        velocity = self.net((1 - s) * z + s * noise, 1000 * levels, y, d)
        return (velocity - (noise - z)).square().flatten(1).mean(1)

    def _draw(self, y: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
        z = self._noise(torch.empty(len(y), *self.shape), generator)
        for k in range(self.steps):
            s = 1 - k / self.steps
            z = z - self._guided(z, torch.full((len(y),), 1000 * s, device=self.device), y, d) / self.steps
        return z

    def _guided(self, z: Tensor, time: Tensor, y: Tensor, d: Tensor) -> Tensor:
        return guided(self.net, z, time, y, d, (self.n_classes, self.n_domains), self.guidance)


def guided(
    net: nn.Module, z: Tensor, time: Tensor, y: Tensor, d: Tensor, nulls: tuple[int, int], guidance: float
) -> Tensor:
    """Output of ``net`` for z under classifier-free guidance: conditional and unconditional in one forward pass."""
    if guidance == 0:
        output: Tensor = net(z, time, y, d)
        return output
    unspecified = torch.full_like(y, nulls[0]), torch.full_like(d, nulls[1])
    both = net(
        torch.cat([z, z]), torch.cat([time, time]), torch.cat([y, unspecified[0]]), torch.cat([d, unspecified[1]])
    )
    conditional, unconditional = both.chunk(2)
    return (1 + guidance) * conditional - guidance * unconditional


def check_sampling(steps: int, guidance: float) -> None:
    """Raise ConfigError for steps below 1 or a guidance that is negative or not finite."""
    if steps < 1:
        raise ConfigError(f"a generator's steps={steps}: give at least 1")
    if not 0 <= guidance < float("inf"):
        raise ConfigError(f"a generator's guidance={guidance}: give 0 (off) or a positive number")
