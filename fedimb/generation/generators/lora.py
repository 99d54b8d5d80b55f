"""LoRA fine-tuning of a local Stable Diffusion: a few hundred thousand weights learn what the prompts mean here.

Hu et al. (ICLR 2022): W + B A on the attention's projections. A is drawn from the seed and frozen; only B, which starts
at zero, is trained (FFA-LoRA: Sun et al., ICLR 2024): only then is the mean of clients' products the product of their
means, so that adapters can be averaged. Classes and domains are given as text prompts; "unspecified" is the empty
prompt.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedimb.errors import ConfigError
from fedimb.generation.base import Generator
from fedimb.generation.examples import images_expected
from fedimb.generation.pretrained import open_stable_diffusion, package
from fedimb.generation.rectified import check_sampling
from fedimb.registry import register

_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


@register("generator", "lora")
class Lora(Generator):
    """Generates images by a local Stable Diffusion with trained LoRA adapters.

    Its state holds the adapters and the scale, not the model: loading it needs the same folder.

    Args:
        n_classes, n_domains, shape: given by fedimb; 1 or 3 channels.
        path: the folder (unet, vae, text_encoder, tokenizer, scheduler); see `fedimb.data.paths`.
        rank: of the adapters.
        size: image side in pixels at which the model works, a multiple of 8; None: the size it was trained at.
        prompt: text with {class}.
        domain: text with {domain} (its id), appended if the domain is specified.
        steps: DDIM steps per sample.
        guidance: w of ``(1 + w) conditional - w unconditional``; 0 is off.
        class_names, seed: given by fedimb.

    Raises:
        ConfigError: settings out of range, no class names, rows that are not images, or diffusers, transformers or peft
            is not installed.
        DataError: no such folder, or it is incomplete.
    """

    sample_batch = 8

    def __init__(
        self,
        n_classes: int,
        n_domains: int,
        shape: tuple[int, ...],
        *,
        path: str,
        rank: int = 8,
        size: int | None = None,
        prompt: str = "a photo of {class}",
        domain: str = ", taken by device {domain}",
        steps: int = 30,
        guidance: float = 5.0,
        class_names: tuple[str, ...] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(n_classes, n_domains, shape)
        check_sampling(steps, guidance)
        channels, *self._sides = images_expected("lora", shape)
        if channels not in (1, 3):
            raise ConfigError(f"generator 'lora' makes grey (1) or RGB (3) images, this data has {channels} channels")
        if class_names is None or len(class_names) != n_classes or "{class}" not in prompt:
            raise ConfigError(
                "generator 'lora' describes classes in text: it needs their names and a prompt with {class}"
            )
        if rank < 1 or (size is not None and (size < 8 or size % 8)):
            raise ConfigError(f"generator 'lora': rank={rank}, size={size}: give a rank from 1 and a multiple of 8")
        self.steps, self.guidance = steps, guidance
        self._names, self._prompt, self._domain = class_names, prompt, domain
        base = open_stable_diffusion("lora", path)
        self._base = base  # not a submodule: its weights are in the folder, not in the state
        factor = 2 ** (len(base.vae.config.block_out_channels) - 1)
        self._size = size or int(base.unet.config.sample_size) * factor
        peft = package("lora", "peft")
        config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=_TARGETS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(config, base.unet)
        self.adapter = nn.ParameterDict()
        for name, parameter in base.unet.named_parameters():
            if "lora_" in name:
                parameter.requires_grad_("lora_B" in name)
                self.adapter[name.replace(".", "/")] = parameter
        self._embeddings: dict[tuple[int, int], Tensor] = {}

    def draw_levels(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, generator=generator, device=generator.device)

    def _losses(self, z: Tensor, y: Tensor, d: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
        scheduler = self._base.scheduler
        latents = self._latents(z)
        noise = self._noise(latents, generator)
        last = scheduler.config.num_train_timesteps
        time = (levels * last).long().clamp(max=last - 1)
        predicted = self._unet(scheduler.add_noise(latents, noise, time), time, self._prompt_embeddings(y, d))
        velocity = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(latents, noise, time) if velocity else noise
        return (predicted - target).square().flatten(1).mean(1)

    def _draw(self, y: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
        base, factor = self._base, 2 ** (len(self._base.vae.config.block_out_channels) - 1)
        side = self._size // factor
        z = self._noise(torch.empty(len(y), base.unet.config.in_channels, side, side), generator)
        embeddings, unconditional = (
            self._prompt_embeddings(y, d),
            self._prompt_embeddings(torch.full_like(y, self.n_classes), d),
        )
        base.scheduler.set_timesteps(self.steps)
        for time in base.scheduler.timesteps:
            predicted = self._unet(z, time, embeddings)
            if self.guidance:
                predicted = (1 + self.guidance) * predicted - self.guidance * self._unet(z, time, unconditional)
            z = base.scheduler.step(predicted, time, z, return_dict=False)[0]
        images = base.vae.decode(z / base.vae.config.scaling_factor, return_dict=False)[0].clamp(-1, 1)
        images = F.interpolate(images, size=self._sides, mode="bicubic", antialias=True, align_corners=False)
        grey = images_expected("lora", self.shape)[0] == 1
        return (images.mean(1, keepdim=True) if grey else images).reshape(-1, *self.shape)

    def _unet(self, z: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        predicted: Tensor = self._base.unet(z, time, encoder_hidden_states=embeddings, return_dict=False)[0]
        return predicted

    @torch.no_grad()
    def _latents(self, z: Tensor) -> Tensor:
        """Rows in -1..1 -> the VAE's means; nothing is sampled, so that a row's loss depends only on the noise."""
        vae = self._base.vae
        images = z.reshape(len(z), -1, *self._sides).expand(-1, 3, -1, -1)
        images = F.interpolate(images, size=(self._size, self._size), mode="bicubic", antialias=True)
        mean: Tensor = vae.encode(images.clamp(-1, 1)).latent_dist.mean
        return mean * vae.config.scaling_factor

    @torch.no_grad()
    def _prompt_embeddings(self, y: Tensor, d: Tensor) -> Tensor:
        """The prompts' embeddings [n, tokens, width]; each cell's is computed once."""
        cells = list(zip(y.tolist(), d.tolist(), strict=True))
        for cell in set(cells) - self._embeddings.keys():
            tokens = self._base.tokenizer(
                self._words(*cell),
                padding="max_length",
                truncation=True,
                max_length=self._base.text_encoder.config.max_position_embeddings,
                return_tensors="pt",
            )
            self._embeddings[cell] = self._base.text_encoder(tokens.input_ids.to(self.device))[0][0]
        return torch.stack([self._embeddings[cell] for cell in cells])

    def _words(self, y: int, d: int) -> str:
        if y == self.n_classes:
            return ""
        words = self._prompt.replace("{class}", self._names[y].replace("_", " "))
        return words if d == self.n_domains else words + self._domain.replace("{domain}", str(d))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._embeddings.clear()
        for part in (self._base.unet, self._base.vae, self._base.text_encoder):
            part._apply(fn, recurse)
        return super()._apply(fn, recurse)
