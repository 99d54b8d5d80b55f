"""Denoising diffusion (Ho, Jain, Abbeel, NeurIPS 2020) on a small UNet, sampled by DDIM or DPM-Solver++.

The network predicts the noise under the cosine schedule of Nichol & Dhariwal (ICML 2021), T = 1000. The samplers (Song,
Meng, Ermon, ICLR 2021; Lu et al. 2022) are diffusers'. Their timestep spacing is always explicit here: with the default
of DPM-Solver++ this schedule starts where the signal's share is 2.4e-9 and samples come out broken; and the default
changes once a scheduler has been saved and loaded.
"""

from typing import Any

import torch
from torch import Tensor

from fedimb.errors import ConfigError, nearest
from fedimb.generation.base import Generator
from fedimb.generation.examples import images_expected
from fedimb.generation.rectified import check_sampling, guided
from fedimb.generation.unet import ConditionalUNet, default_widths, diffusers
from fedimb.registry import register

_T = 1000
_SCHEDULE = {"num_train_timesteps": _T, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "epsilon"}
_SAMPLERS: dict[str, tuple[str, dict[str, object]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": True, "timestep_spacing": "leading"}),
    "dpm": ("DPMSolverMultistepScheduler", {"timestep_spacing": "leading"}),
}


@register("generator", "ddpm")
class Ddpm(Generator):
    """Generates images by denoising diffusion (DDPM) on diffusers' UNet.

    Args:
        n_classes, n_domains, shape: given by fedimb; shape (height, width) or (channels, height, width).
        widths: channels per level, multiples of 8; None: chosen by image size.
        attention: self-attention between pixels at the innermost level.
        steps: sampler steps per sample.
        sampler: ddim, or dpm (DPM-Solver++, order 2).
        guidance: w of classifier-free guidance; 0 is off; above 0 costs diversity.
        seed: of the initial weights (given by fedimb).

    Raises:
        ConfigError: rows that are not images, settings out of range, or diffusers is not installed.
    """

    signal: Tensor

    def __init__(
        self,
        n_classes: int,
        n_domains: int,
        shape: tuple[int, ...],
        *,
        widths: tuple[int, ...] | None = None,
        attention: bool = False,
        steps: int = 20,
        sampler: str = "ddim",
        guidance: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(n_classes, n_domains, shape)
        check_sampling(steps, guidance)
        if sampler not in _SAMPLERS:
            raise ConfigError(f"generator 'ddpm': sampler={sampler!r}.{nearest(sampler, _SAMPLERS)}")
        if steps > _T:
            raise ConfigError(f"generator 'ddpm': steps={steps}: give at most {_T}")
        self.steps, self.sampler, self.guidance = steps, sampler, guidance
        chosen = widths or default_widths(*images_expected("ddpm", shape)[1:])
        self.net = ConditionalUNet(n_classes, n_domains, self.shape, chosen, attention, seed, "ddpm")
        schedule = self._scheduler().alphas_cumprod.to(torch.float32)
        self.register_buffer("signal", schedule, persistent=False)  # [T], follows from the schedule's name

    def class_rows(self) -> dict[str, int]:
        return super().class_rows() | {"net.class_embedding.weight": self.n_classes}

    def domain_rows(self) -> dict[str, int]:
        return super().domain_rows() | {"net.domain_embedding.weight": self.n_domains}

    def draw_levels(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, generator=generator, device=generator.device)

    def _losses(self, z: Tensor, y: Tensor, d: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
        noise = self._noise(z, generator)
        time = (levels * _T).long().clamp(max=_T - 1)
        signal = self.signal[time].view(-1, *[1] * (z.ndim - 1))
        predicted = self.net(signal.sqrt() * z + (1 - signal).sqrt() * noise, time, y, d)
        return (predicted - noise).square().flatten(1).mean(1)

    def _draw(self, y: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
        scheduler = self._scheduler()
        scheduler.set_timesteps(self.steps)
        z = self._noise(torch.empty(len(y), *self.shape), generator)
        nulls = (self.n_classes, self.n_domains)
        for time in scheduler.timesteps:
            times = time.to(self.device).expand(len(y))
            predicted = guided(self.net, z, times, y, d, nulls, self.guidance)
            z = scheduler.step(predicted, time, z, return_dict=False)[0]
        return z

    def _scheduler(self) -> Any:
        name, settings = _SAMPLERS[self.sampler]
        return getattr(diffusers("ddpm"), name)(**_SCHEDULE, **settings)
