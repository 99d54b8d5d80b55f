"""Loads Stable Diffusion from a complete local folder. Nothing is ever downloaded."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from fedimb.data.paths import find_data
from fedimb.errors import ConfigError, DataError
from fedimb.process_env import import_offline

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True)
class StableDiffusion:
    """The parts of a text-to-image model, frozen and in evaluation mode; ``scheduler`` is a DDIMScheduler."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any


def package(generator: str, name: str) -> ModuleType:
    """Import an optional package, only when it is needed.

    Raises:
        ConfigError: it is missing.
    """
    try:
        return import_offline(name)
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        raise ConfigError(
            f"generator '{generator}' needs the Python package {name} ({error}): "
            f"pip install 'fedimb[generate]' peft transformers"
        ) from error


def open_stable_diffusion(generator: str, path: str) -> StableDiffusion:
    """Load a folder written by ``save_pretrained`` of a StableDiffusionPipeline.

    Raises:
        ConfigError: diffusers or transformers is not installed.
        DataError: no such folder, or a part is missing, damaged or incomplete.
    """
    diffusers, transformers = package(generator, "diffusers"), package(generator, "transformers")
    try:
        folder = find_data(path)
    except DataError as error:
        raise DataError(
            f"generator '{generator}' expects a Stable Diffusion folder at '{path}': {error}. Nothing is downloaded: "
            f"copy the model's folder (with {', '.join(PARTS)}) there"
        ) from None
    if lacking := [part for part in PARTS if not (folder / part).is_dir()]:
        raise DataError(
            f"{folder} lacks {', '.join(lacking)}: copy the complete Stable Diffusion folder ({', '.join(PARTS)})"
        )
    models = {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "text_encoder": transformers.CLIPTextModel,
    }
    try:
        with torch.random.fork_rng(devices=[]):  # weights that are about to be overwritten are drawn first
            loaded = {part: _whole(model, folder, part) for part, model in models.items()}
        tokenizer = transformers.CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
        # Spacing is always explicit: its default depends on how the scheduler was saved.
        scheduler = diffusers.DDIMScheduler.from_pretrained(
            str(folder), subfolder="scheduler", timestep_spacing="leading", local_files_only=True
        )
    except Exception as error:  # each part's loader raises its own exceptions on damaged files
        raise DataError(
            f"{folder} cannot be read as Stable Diffusion ({' '.join(str(error).split())[:300]})"
        ) from error
    return StableDiffusion(**loaded, tokenizer=tokenizer, scheduler=scheduler)


def _whole(model: Any, folder: Path, part: str) -> Any:
    model_part, report = model.from_pretrained(
        str(folder), subfolder=part, local_files_only=True, output_loading_info=True, torch_dtype=torch.float32
    )
    # Position ids are not learned: older folders contain them, newer code does not.
    if missing := sorted(key for key in report["missing_keys"] if not key.endswith("position_ids")):
        raise ValueError(f"{part} lacks {len(missing)} tensors, first {missing[0]}")
    model_part.requires_grad_(False)
    return model_part.eval()
