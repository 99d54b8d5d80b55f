"""A model that normalises its own input images, channel by channel."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.shapes import may_be_signal


class NormalizesInputs(Classifier):
    """Mixed into a classifier's class by `normalize_inputs`."""

    channel_mean: Tensor
    channel_deviation: Tensor

    def features(self, x: Tensor) -> Tensor:
        """The model's own features of ``(x - mean) / deviation``."""
        return super().features((x - self.channel_mean) / self.channel_deviation)


def normalize_inputs(
    model: Classifier, mean: Sequence[float], deviation: Sequence[float], input_shape: tuple[int, ...]
) -> Classifier:
    """Let a model normalise images [n, *input_shape] before its first layer; it is changed in place, and returned.

    The numbers are buffers that are neither trained nor sent: they come from the configuration, or from the file that
    describes a stored model.

    Raises:
        ConfigError: the data are not images, or have another number of channels; the model has an encoder.
    """
    if len(input_shape) not in (2, 3) or may_be_signal(input_shape):
        raise ConfigError(f"data.normalize is for images, these rows have shape {tuple(input_shape)}: set it to null")
    channels = input_shape[0] if len(input_shape) == 3 else 1
    if len(mean) != channels:
        raise ConfigError(f"data.normalize has {len(mean)} means, these images have {channels} channels: give one each")
    if hasattr(model, "encoder"):
        raise ConfigError("data.normalize: the model's encoder prepares images in its own way: set it to null")
    shape = (channels, 1, 1) if len(input_shape) == 3 else (1, 1)
    model.register_buffer("channel_mean", torch.tensor(mean, dtype=torch.float32).view(shape), persistent=False)
    model.register_buffer("channel_deviation", torch.tensor(deviation, dtype=torch.float32).view(shape), False)
    kind: Any = type(model)  # mypy takes no class of modules for hashable
    model.__class__ = _with_inputs_normalized(kind)
    return model


@lru_cache(maxsize=64)
def _with_inputs_normalized(kind: type[Classifier]) -> type[Classifier]:
    return cast(type[Classifier], type(f"Normalized{kind.__name__}", (NormalizesInputs, kind), {}))
