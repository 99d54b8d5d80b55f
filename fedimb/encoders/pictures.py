"""Shared code of pretrained image-and-text encoders: image preprocessing, prompts, class vectors."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fedimb.data.paths import find_data
from fedimb.encoders.checks import class_names_expected, finite_rows, unit_rows
from fedimb.errors import ConfigError, DataError

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the images that CLIP was trained on (Radford et al., ICML 2021; from their published code)."""

PROMPT = "a photo of a {class}."


def model_folder(encoder: str, path: str, needed: str) -> Path:
    """The folder of a pretrained model, looked up like data (`fedimb.data.paths`).

    Args:
        needed: a file that such a folder contains.

    Raises:
        DataError: it is missing, not a folder, or without ``needed``. Nothing is ever fetched.
    """
    try:
        folder = find_data(path)
    except DataError as error:
        raise DataError(
            f"encoder '{encoder}' expects the model's folder at '{path}': {error}. Nothing is downloaded: copy the "
            f"folder (with {needed}) there"
        ) from None
    if not (folder / needed).is_file():
        raise DataError(
            f"encoder '{encoder}': {folder} has no {needed}, so it is not a model's folder; copy the complete folder"
        )
    return folder


def model_files(folder: Path) -> list[str]:
    """Every file of the folder, sorted, for the encoder's fingerprint."""
    return sorted(str(file) for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def check_channels(encoder: str, channels: int) -> None:
    """Raises ConfigError unless images are grey or in colour."""
    if channels not in (1, 3):
        raise ConfigError(f"encoder '{encoder}' reads grey (1) or RGB (3) images, this data has {channels} channels")


def pictures(x: Tensor, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images [n, h, w] or [n, 1 or 3, h, w] float32 in 0..1 -> [n, 3, *size] as input of a pretrained model.

    Bicubic with antialiasing to the full size (the aspect ratio is not kept, nothing is cropped).
    """
    images = x.unsqueeze(1) if x.ndim == 3 else x
    if images.shape[2:] != size:
        images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    colour = images.expand(-1, 3, -1, -1)
    return (colour - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def check_prompts(encoder: str, prompts: Sequence[str]) -> None:
    """Raises ConfigError unless there is at least one prompt and each contains the placeholder for the class name."""
    if not prompts or any("{class}" not in prompt for prompt in prompts):
        raise ConfigError(
            f"encoder '{encoder}': prompts={list(prompts)}: give texts with {{class}}, such as '{PROMPT}'"
        )


def text_vectors(
    encoder: str, class_names: Sequence[str], prompts: Sequence[str], encode_texts: Callable[[list[str]], Tensor]
) -> Tensor:
    """[C, d] float32 of unit length: the normalised mean of every prompt's normalised vector.

    Args:
        encode_texts: texts -> [number of texts, d] float32.

    Raises:
        ConfigError: names missing, empty or repeated.
        DataError: a vector that is not finite.
    """
    class_names_expected(encoder, class_names)
    means = []
    for name in class_names:
        texts = [prompt.replace("{class}", name.replace("_", " ")) for prompt in prompts]
        vectors = finite_rows(f"encoder '{encoder}', class '{name}'", encode_texts(texts))
        means.append(unit_rows(vectors).mean(0))
    return unit_rows(torch.stack(means))
