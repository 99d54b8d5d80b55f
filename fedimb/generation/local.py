"""Rows a client makes from its own rows, as the controls that a generator is compared with. Never shared."""

from typing import Literal

import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.generation.smote import oversample, smote
from fedimb.training.augmentations.class_composite import ClassComposite

Made = Literal["oversample", "smote", "composite"]


def local_rows(made: str, x: Tensor, y: Tensor, wanted: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Make the wanted number of rows per class; a class without rows to make them from gets none.

    Args:
        made: ``oversample``: repeat rows; ``smote``: points between rows; ``composite``: several images in one.
        x: [n, *shape] float32; y: [n] int64.
        wanted: [C] int64.
        generator: source of all randomness.

    Returns:
        (x [m, *shape], y [m]).

    Raises:
        ConfigError: an unknown ``made``, or composites of rows that are not images.
    """
    if made == "smote":
        return smote(x, y, wanted, generator)
    again = oversample(y, wanted, generator)
    if made == "oversample":
        return x[again], y[again]
    if made == "composite":
        compose = ClassComposite(k=3, p=1.0, input_shape=tuple(x.shape[1:]))
        return compose(x[again], y[again], x, y, generator) if len(again) else x[again], y[again]
    raise ConfigError(f"strategy.fedssg.made={made}: give generator, oversample, smote or composite")
