"""Class vectors where no text encoder brings any: class means of embeddings over all clients.

A client sends, per class, how many rows it has and the sum of their embeddings; the sums add up, so the means are those
of the pooled rows, whatever the partition. A sum over few rows tells about each of them: below a minimum count a class
is left out. Source: ours, after class-mean prototypes (Mensink et al., 2013; FedProto, Tan et al., AAAI 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.encoders.checks import finite_rows
from fedimb.errors import ConfigError, DataError

_PART = 4096  # rows held in float64 at a time


@dataclass(frozen=True)
class ClassSums:
    """What leaves a site.

    Attributes:
        counts: [C] int64 rows summed; 0 where the client has no row of the class, or fewer than the minimum.
        sums: [C, d] float64; zeros where the count is 0.
    """

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]


def class_sums(embeddings: Tensor, labels: Tensor, n_classes: int, minimum: int = 1) -> ClassSums:
    """One client's part of the prototypes.

    Args:
        embeddings: [n, d] float32, usually of unit length (`fedimb.encoders.checks.unit_rows`).
        labels: [n] int64.
        n_classes: C.
        minimum: a class with fewer rows here is not sent, at least 1.

    Raises:
        ConfigError: a minimum below 1.
        DataError: lengths that differ, labels outside 0..C-1, embeddings that are not finite.
    """
    if minimum < 1:
        raise ConfigError(f"prototypes: minimum={minimum}: give at least 1 row")
    if labels.shape != (len(embeddings),):
        raise DataError(
            f"prototypes: {len(embeddings)} embeddings beside labels {list(labels.shape)}; give one label per row"
        )
    values, y = finite_rows("prototypes", embeddings).cpu(), labels.cpu().numpy().astype(np.int64)
    if len(y) and not (y.min() >= 0 and y.max() < n_classes):
        raise DataError(f"prototypes: labels reach from {y.min()} to {y.max()}; expected 0 to {n_classes - 1}")
    counts = np.bincount(y, minlength=n_classes)
    kept = counts >= minimum
    total = torch.zeros(n_classes, values.shape[1], dtype=torch.float64)
    for part, of in zip(values.split(_PART), torch.from_numpy(y).split(_PART), strict=True):
        total.index_add_(0, of, part.double())
    sums = total.numpy()
    return ClassSums(np.where(kept, counts, 0).astype(np.int64), np.where(kept[:, None], sums, 0.0))


def merge(parts: Sequence[ClassSums]) -> ClassSums:
    """All clients' sums in one, added in the order given.

    Raises:
        DataError: none, or parts of different classes or dimensions.
    """
    if not parts:
        raise DataError("prototypes: no client sent any class sums; lower the minimum count or ask more clients")
    shapes = {(part.counts.shape, part.sums.shape) for part in parts}
    if len(shapes) > 1:
        raise DataError(f"prototypes: clients sent sums of different shapes {sorted(shapes)}: one encoder for all")
    counts, sums = np.zeros_like(parts[0].counts), np.zeros_like(parts[0].sums)
    for part in parts:
        counts += part.counts
        sums += part.sums
    return ClassSums(counts, sums)


def prototypes(total: ClassSums, unit: bool = False) -> NDArray[np.float32]:
    """[C, d] float32 class means; NaN rows for classes nobody sent.

    Args:
        unit: bring each mean to length one; a mean of zero length has no direction and stays.
    """
    held = total.counts[:, None] > 0
    means: NDArray[np.float64] = np.where(held, total.sums / np.maximum(total.counts[:, None], 1), np.nan)
    if unit:
        length = np.linalg.norm(means, axis=1, keepdims=True)
        means = means / np.where(length > 0, length, 1.0)
    return means.astype(np.float32)
