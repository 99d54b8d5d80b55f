"""Input checks of encoders, and normalisation to unit length."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from fedimb.errors import ConfigError, DataError
from fedimb.models.images import image_shape


def images_expected(encoder: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width) or (channels, height, width) -> (channels, height, width).

    Raises:
        ConfigError: the data are not images.
    """
    return image_shape(f"encoder '{encoder}' reads", input_shape, "for tables use identity, pca or global_features")


def class_names_expected(encoder: str, class_names: Sequence[str]) -> None:
    """Raises ConfigError unless there is one distinct, non-blank name per class, since their text is encoded."""
    if not class_names:
        raise ConfigError(
            f"encoder '{encoder}' makes class vectors from names, but the data have no class names: add them"
        )
    if blank := [c for c, name in enumerate(class_names) if not name.strip()]:
        raise ConfigError(f"encoder '{encoder}': class {blank[0]} has an empty name; give every class a name to read")
    if twice := [name for name, times in Counter(class_names).items() if times > 1]:
        raise ConfigError(f"encoder '{encoder}': {twice[0]!r} names two classes; give every class its own name")


def finite_rows(what: str, embeddings: Tensor) -> Tensor:
    """Return ``embeddings`` [n, d] float32 unchanged.

    Raises:
        DataError: not [n, d] float32 with d of at least 1, or a NaN or infinite value (the message names the first
            row).
    """
    if embeddings.ndim != 2 or embeddings.shape[1] == 0 or embeddings.dtype != torch.float32:
        raise DataError(f"{what} gave {embeddings.dtype} {list(embeddings.shape)}; expected float32 [n, d]")
    bad = ~torch.isfinite(embeddings).all(dim=1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise DataError(
            f"{what}: row {row} of {len(embeddings)} has a NaN or infinite embedding ({int(bad.sum())} such rows); "
            f"fix the row or the encoder's file"
        )
    return embeddings


def unit_rows(embeddings: Tensor) -> Tensor:
    """[n, d] float32 -> rows of length one; a row of zeros has no direction and stays zero: similar to nothing.

    Raises:
        DataError: see `finite_rows`.
    """
    largest = finite_rows("unit_rows", embeddings).abs().amax(dim=1, keepdim=True)
    largest[largest == 0] = 1.0
    scaled = embeddings / largest  # the square of a large float32 is infinite
    return scaled.div_(scaled.norm(dim=1, keepdim=True).clamp_(min=1e-3))  # at least 1, except for a row of zeros
