"""CLIP and similar models (SigLIP, MetaCLIP) from a local folder, with Hugging Face transformers.

Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021. The folder is the
output of ``save_pretrained`` or a download of the model's repository; nothing is fetched here.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedimb.data.sources.files import fingerprint
from fedimb.encoders.base import Encoder
from fedimb.encoders.checks import images_expected
from fedimb.encoders.pictures import (
    CLIP_MEAN,
    CLIP_STD,
    PROMPT,
    check_channels,
    check_prompts,
    model_files,
    model_folder,
    pictures,
    text_vectors,
)
from fedimb.errors import ConfigError, DataError
from fedimb.process_env import import_offline
from fedimb.registry import register


@register("encoder", "clip")
class Clip(Encoder):
    """Image and class-name vectors of CLIP, SigLIP or MetaCLIP, from a local folder.

    Args:
        path: the model's folder (config.json, weights, tokenizer); see `fedimb.data.paths`.
        prompts: texts with {class}, where underscores in names become spaces; several prompts are averaged.
        input_shape: of one row (given by fedimb).

    Raises:
        ConfigError: transformers is not installed, the data are not images, or a prompt without {class}.
        DataError: no such folder, or transformers cannot load it.
    """

    provenance = "external"

    def __init__(self, path: str, prompts: tuple[str, ...] = (PROMPT,), *, input_shape: tuple[int, ...]) -> None:
        channels, _, _ = images_expected("clip", input_shape)
        check_channels("clip", channels)
        check_prompts("clip", prompts)
        folder = model_folder("clip", path, "config.json")
        self.prompts = prompts
        self._model, self._tokenizer = _load(folder)
        side = self._model.config.vision_config.image_size
        self._size = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
        self._mean, self._std = _colours(folder)
        self._key = fingerprint("clip-1", model_files(folder))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Images [n, *input_shape] float32 in 0..1 -> [n, d] float32, projected, not normalised."""
        pixels = pictures(x, self._size, self._mean, self._std)
        return _vectors(self._model.get_image_features(pixel_values=pixels))

    def class_vectors(self, class_names: tuple[str, ...]) -> Tensor:
        """[C, d] float32 of unit length; see `fedimb.encoders.pictures.text_vectors` for the exceptions."""
        return text_vectors("clip", class_names, self.prompts, self._texts)

    def fingerprint(self) -> str:
        return self._key

    @torch.no_grad()
    def _texts(self, texts: list[str]) -> Tensor:
        # max_length: SigLIP was trained this way, and CLIP ignores everything after its end-of-text token.
        length = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return _vectors(self._model.get_text_features(**tokens))


def _load(folder: Path) -> tuple[Any, Any]:
    """(model in evaluation mode, tokenizer), without network access or draws from the global generator."""
    try:
        transformers: Any = import_offline("transformers")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not match torch
        raise ConfigError(
            f"encoder 'clip' needs the Python package 'transformers' ({error}): pip install transformers"
        ) from error
    try:
        with torch.random.fork_rng(devices=[]):
            model, report = transformers.AutoModel.from_pretrained(
                str(folder), local_files_only=True, output_loading_info=True
            )
        if missing := sorted(report["missing_keys"]):  # transformers would continue with random ones
            raise ValueError(f"its weights lack {len(missing)} tensors, first {missing[0]}")
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"encoder 'clip': {folder} cannot be loaded ({reason}); copy the complete folder") from error
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise DataError(f"encoder 'clip': {folder} is a {type(model).__name__}, which does not read images and text")
    return model.float().eval(), tokenizer


def _vectors(answer: Any) -> Tensor:
    """transformers 4 returns the tensor, 5 an object that contains it."""
    tensor: Tensor = answer if isinstance(answer, Tensor) else answer.pooler_output
    return tensor.float()


def _colours(folder: Path) -> tuple[list[float], list[float]]:
    """(mean, std) per channel from the folder's preprocessor_config.json, else CLIP's."""
    file = folder / "preprocessor_config.json"
    facts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return list(facts.get("image_mean", CLIP_MEAN)), list(facts.get("image_std", CLIP_STD))
