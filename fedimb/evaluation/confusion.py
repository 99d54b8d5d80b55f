"""Integer confusion matrices: what a client sends, and the only thing every score is computed from.

Rows are true classes, columns predicted ones; where rows have several labels, one table [2, 2] per class
(`fedimb.evaluation.multilabel`). Matrices of disjoint samples add, so the sum over clients is
the matrix of the pooled data exactly; averages of per-client macro scores have no such meaning.
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
    if ids.size == 0:  # an empty list is float64 to NumPy, and an empty client is no error
        return np.zeros(0, np.int64)
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{what} must be integer class ids; got {ids.dtype} (logits? take the argmax first)")
    wrong = (ids < 0) | (ids >= n_classes)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(f"{what}[{at}] is {int(ids[at])}; class ids go from 0 to {n_classes - 1}")
    return ids.astype(np.int64)


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Count (true class, predicted class) pairs. One bincount.

    Args:
        labels: true class ids, integers, shape [n]; n may be 0.
        predictions: predicted class ids, integers, shape [n].
        n_classes: C, at least 1; classes without a sample keep their row and column.

    Returns:
        int64 [C, C], rows = true class, columns = predicted class.

    Raises:
        ValueError: a class id outside 0..C-1 (named, with its position), unequal lengths, not integers.

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
    """What was predicted of rows, counted: the one place that turns a model's logits into predictions.

    Args:
        labels: [n] int64 class ids, or [n, C] targets of 0 and 1.
        logits: [n, C] float32.

    Returns:
        int64 [C, C] with the largest logit as prediction; or [C, 2, 2], a class predicted where its probability is
        above .5, that is where its logit is above 0.
    """
    if labels.ndim == 2:
        return label_confusion(labels.cpu().numpy(), (logits > 0).cpu().numpy())
    return confusion_matrix(labels.cpu().numpy(), logits.argmax(1).cpu().numpy(), logits.shape[1])


def hits_and_support(matrix: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows of each class that were found, rows that have it), int64 [C] each, of [C, C] or [C, 2, 2]."""
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
    # Unsigned counts wrap in differences such as s^2 - sum p^2.
    return counts.astype(np.int64) if counts.dtype.kind in "iu" else counts


def sum_matrices(matrices: Iterable[ArrayLike]) -> NDArray[np.int64]:
    """Sum integer confusion matrices: over clients, lanes or batches.

    Args:
        matrices: at least one integer [C, C], all of one C.

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
