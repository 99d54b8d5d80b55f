"""Integer confusion matrices: what a client sends, and the only input of all scores.

Rows are true classes, columns predicted ones; if rows have several labels, there is one table [2, 2] per class
(`fedimb.evaluation.multilabel`). Matrices of disjoint samples can be added, so the sum over clients is exactly the
matrix of the pooled data; averages of per-client macro scores have no such meaning.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.evaluation.multilabel import label_confusion

if TYPE_CHECKING:
    from torch import Tensor


def _class_ids(values: ArrayLike, what: str, n_classes: int) -> NDArray[np.int64]:
    ids = np.asarray(values)
    if ids.ndim != 1:
        raise ValueError(f"{what} must be one class id per sample, shape [n]; got shape {ids.shape}")
    if ids.size == 0:  # NumPy makes an empty list float64, and an empty client is not an error
        return np.zeros(0, np.int64)
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{what} must be integer class ids; got {ids.dtype} (logits? take the argmax first)")
    wrong = (ids < 0) | (ids >= n_classes)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(f"{what}[{at}] is {int(ids[at])}; class ids go from 0 to {n_classes - 1}")
    return ids.astype(np.int64)


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Count (true class, predicted class) pairs, with one bincount.

    Args:
        labels: true class ids, integers, shape [n]; n may be 0.
        predictions: predicted class ids, integers, shape [n].
        n_classes: C, at least 1; classes without samples keep their row and column.

    Returns:
        int64 [C, C], rows = true class, columns = predicted class.

    Raises:
        ValueError: a class id outside 0..C-1 (the message gives its position), unequal lengths, not integers.

    Example:
        >>> confusion_matrix([0, 0, 0, 1], [0, 0, 1, 1], n_classes=3).tolist()
        [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    """
    if n_classes < 1:
        raise ValueError(f"n_classes must be at least 1; got {n_classes}")
    true = _class_ids(labels, "labels", n_classes)
    predicted = _class_ids(predictions, "predictions", n_classes)
    if true.size != predicted.size:
        raise ValueError(f"{true.size} labels but {predicted.size} predictions: need one of each per sample")
    pairs = np.bincount(true * n_classes + predicted, minlength=n_classes * n_classes)
    return pairs.astype(np.int64).reshape(n_classes, n_classes)


def confusion_of(labels: "Tensor", logits: "Tensor") -> NDArray[np.int64]:
    """Confusion matrix of a model's logits: the only place that turns logits into predictions.

    Args:
        labels: [n] int64 class ids, or [n, C] targets of 0 and 1, NaN where unknown.
        logits: [n, C] float32.

    Returns:
        int64 [C, C] with the largest logit as prediction; or [C, 2, 2], where a class is predicted if its probability
        is above .5, that is if its logit is above 0.
    """
    if labels.ndim == 2:
        return label_confusion(labels.cpu().numpy(), (logits > 0).cpu().numpy())
    return confusion_matrix(labels.cpu().numpy(), logits.argmax(1).cpu().numpy(), logits.shape[1])


def hits_and_support(matrix: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(correctly predicted rows of each class, rows of the class), int64 [C] each, from [C, C] or [C, 2, 2]."""
    counts = np.asarray(matrix)
    if counts.ndim == 3:
        return counts[:, 1, 1].copy(), counts[:, 1].sum(axis=1)
    return counts.diagonal().copy(), counts.sum(axis=1)


def check_matrix(matrix: ArrayLike) -> NDArray[np.generic]:
    """The matrix as an array [..., C, C], integers as int64.

    Raises:
        ValueError: not square, no class, or a count that is negative or not finite.
    """
    counts = np.asarray(matrix)
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2] or counts.shape[-1] == 0:
        raise ValueError(f"a confusion matrix has shape [C, C]; got {counts.shape}")
    if counts.dtype.kind not in "iuf" or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("a confusion matrix holds finite counts of at least 0")
    # Unsigned counts would wrap around in differences such as s^2 - sum p^2.
    return counts.astype(np.int64) if counts.dtype.kind in "iu" else counts


def sum_matrices(matrices: Iterable[ArrayLike]) -> NDArray[np.int64]:
    """Sum integer confusion matrices: over clients, lanes or batches.

    Args:
        matrices: at least one integer [C, C], all with the same C.

    Returns:
        int64 [C, C]; exact and independent of order.

    Raises:
        ValueError: none given, shapes differ, or counts that are not integers.
    """
    total: NDArray[np.int64] | None = None
    for position, one in enumerate(matrices):
        counts = check_matrix(one)
        if counts.ndim != 2 or counts.dtype.kind != "i":
            raise ValueError(f"matrix {position} is {counts.dtype} {counts.shape}: only integer [C, C] sums exactly")
        if total is None:
            total = np.zeros(counts.shape, np.int64)
        if counts.shape != total.shape:
            raise ValueError(f"matrix {position} has shape {counts.shape}, the ones before {total.shape}")
        total = total + counts.astype(np.int64)
    if total is None:
        raise ValueError("no confusion matrix to sum: no client reported one")
    return total
