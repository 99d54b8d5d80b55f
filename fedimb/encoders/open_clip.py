"""Models of open_clip (MobileCLIP, BiomedCLIP, ...) from a local folder.

SCOPE uses MobileCLIP-S2 (Vasu et al., CVPR 2024). open_clip depends on torchvision, which replaces torch on a machine
without a GPU, so fedimb never installs it: install it yourself if you need it. Nothing is fetched here.
"""

from typing import Any

import torch
from torch import Tensor

from fedimb.data.sources.files import fingerprint
from fedimb.encoders.base import Encoder
from fedimb.encoders.checks import images_expected
from fedimb.encoders.pictures import (
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


@register("encoder", "open_clip")
class OpenClip(Encoder):
    """Image and class-name vectors of MobileCLIP, BiomedCLIP and others, from a local folder.

    Args:
        path: folder with open_clip_config.json and the weights, such as a download of an ``-OpenCLIP`` repository;
            see `fedimb.data.paths`.
        prompts: texts with {class}, where underscores in names become spaces; several prompts are averaged.
        input_shape: of one row (given by fedimb).

    Raises:
        ConfigError: open_clip is not installed, the data are not images, or a prompt without {class}.
        DataError: no such folder, or open_clip cannot load it.
    """

    provenance = "external"

    def __init__(self, path: str, prompts: tuple[str, ...] = (PROMPT,), *, input_shape: tuple[int, ...]) -> None:
        channels, _, _ = images_expected("open_clip", input_shape)
        check_channels("open_clip", channels)
        check_prompts("open_clip", prompts)
        folder = model_folder("open_clip", path, "open_clip_config.json")
        try:
            open_clip: Any = import_offline("open_clip")
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not match torch
            raise ConfigError(
                f"encoder 'open_clip' needs the Python package 'open_clip' ({error}): pip install open_clip_torch, "
                f"with a torchvision that matches your torch"
            ) from error
        try:
            with torch.random.fork_rng(devices=[]):
                # Without require_pretrained a folder without weights gives a randomly initialised model.
                self._model = open_clip.create_model(
                    f"local-dir:{folder}", precision="fp32", device="cpu", require_pretrained=True
                ).eval()
            self._tokenizer: Any = open_clip.get_tokenizer(f"local-dir:{folder}")
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"encoder 'open_clip': {folder} cannot be loaded ({reason}); copy the complete folder"
            ) from error
        self.prompts = prompts
        wanted = open_clip.get_model_preprocess_cfg(self._model)
        side = wanted["size"]
        self._size = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
        self._mean, self._std = list(wanted["mean"]), list(wanted["std"])
        self._key = fingerprint("open_clip-1", model_files(folder))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Images [n, *input_shape] float32 in 0..1 -> [n, d] float32, projected, not normalised."""
        vectors: Tensor = self._model.encode_image(pictures(x, self._size, self._mean, self._std))
        return vectors.float()

    def class_vectors(self, class_names: tuple[str, ...]) -> Tensor:
        """[C, d] float32 of unit length; see `fedimb.encoders.pictures.text_vectors` for the exceptions."""
        return text_vectors("open_clip", class_names, self.prompts, self._texts)

    def fingerprint(self) -> str:
        return self._key

    @torch.no_grad()
    def _texts(self, texts: list[str]) -> Tensor:
        vectors: Tensor = self._model.encode_text(self._tokenizer(texts))
        return vectors.float()
