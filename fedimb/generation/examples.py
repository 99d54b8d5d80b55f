"""The rows a generator learns from and produces, and the checks that refuse bad ones before any work."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.data.inputs import check_units
from fedimb.errors import ConfigError, DataError
from fedimb.models.images import image_shape

WARN, REFUSE = 50, 20  # imbalance-systems row 3: warn below 50 real images of a class, refuse below 20


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows a generator learns from, or produces.

    Attributes:
        x: float32 [n, *shape], scaled as models see it (images: 0..1).
        y: int64 [n] class ids.
        d: int64 [n] domain (device) ids, all 0 if none are known.
    """

    x: Tensor
    y: Tensor
    d: Tensor


def check_sizes(n_classes: int, n_domains: int, shape: Sequence[int]) -> None:
    """Raise ConfigError unless there is at least one class, one domain and a shape with sizes above 0."""
    if n_classes < 1 or n_domains < 1 or not shape or min(shape) < 1:
        raise ConfigError(
            f"a generator needs n_classes and n_domains of at least 1 and a shape of sizes of at least 1; "
            f"got {n_classes}, {n_domains}, {tuple(shape)}"
        )


def images_expected(generator: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """(height, width) or (channels, height, width) -> (channels, height, width).

    Raises:
        ConfigError: the data are not images.
    """
    return image_shape(f"generator '{generator}' makes", shape, "for tables and embeddings use table_flow")


def columns_expected(generator: str, shape: Sequence[int]) -> int:
    """The number of columns of rows of shape (columns,).

    Raises:
        ConfigError: the data are not rows of numbers.
    """
    if len(shape) != 1:
        raise ConfigError(
            f"generator '{generator}' makes rows of numbers (columns,), this data has {tuple(shape)}: use flow"
        )
    return int(shape[0])


def check_examples(examples: Examples, n_classes: int, shape: tuple[int, ...]) -> None:
    """Refuse what no generator can learn from.

    Raises:
        DataError: no rows, rows of another shape, another dtype than float32, a NaN or infinite value (the first such
            row is named), labels that do not fit the rows or the classes.
    """
    x = examples.x
    if len(x) == 0:
        raise DataError("no examples to train a generator on: give at least one row")
    if tuple(x.shape[1:]) != tuple(shape):
        raise DataError(
            f"examples of shape {tuple(x.shape[1:])}, the generator makes {tuple(shape)}: "
            f"all need the same size and number of channels; resize or convert them first"
        )
    if x.dtype != torch.float32:
        raise DataError(f"examples are {x.dtype}: give float32, scaled as models see it (images: 0..1)")
    bad = ~torch.isfinite(x.flatten(1)).all(dim=1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise DataError(
            f"example {row} of {len(x)} has a NaN or infinite value ({int(bad.sum())} such): drop or fix it"
        )
    if examples.y.shape != (len(x),) or examples.d.shape != (len(x),):
        raise DataError(
            f"{len(x)} examples with y of shape {tuple(examples.y.shape)} and d of {tuple(examples.d.shape)}: "
            f"give one class id and one domain id for each"
        )
    check_conditions(examples.y, examples.d, n_classes, null=False)


def check_beside(place: str, made: Tensor, real: Tensor) -> None:
    """Refuse made rows [n, *shape] whose values are of another order than the real rows' [m, *shape] that they are
    trained on with (`fedimb.data.inputs.check_units`). Without rows on either side nothing is judged.

    Raises:
        DataError: they are.
    """
    if made.numel() and real.numel():
        beside = float(real.min()), float(real.max())
        check_units(place, float(made.min()), float(made.max()), beside, real.numel())


def check_conditions(y: Tensor, d: Tensor, n_classes: int, null: bool) -> None:
    """Raise DataError unless y and d are int64 [n] and y in 0..n_classes - 1 (``null``: n_classes too)."""
    if y.dtype != torch.int64 or d.dtype != torch.int64 or y.ndim != 1 or y.shape != d.shape:
        raise DataError(
            f"class and domain ids must be int64 of one length [n]; got {y.dtype} {tuple(y.shape)} "
            f"and {d.dtype} {tuple(d.shape)}"
        )
    highest = n_classes if null else n_classes - 1
    if len(y) and not (int(y.min()) >= 0 and int(y.max()) <= highest):
        raise DataError(f"class ids {int(y.min())}..{int(y.max())}: expected 0..{n_classes - 1}")


def check_trained(scaled: bool, name: str) -> None:
    """Raise ConfigError unless the generator has a scale."""
    if not scaled:
        raise ConfigError(f"{name} was never trained: call train_generator (or fit_scale), or load a trained state")


def small_classes(counts: NDArray[np.int64], below: int) -> list[int]:
    """Class ids with at least one row but fewer than ``below``; a class without rows cannot be generated at all."""
    return [int(c) for c in np.flatnonzero((counts > 0) & (counts < below))]
