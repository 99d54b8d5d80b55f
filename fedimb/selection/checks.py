"""Checks of input tensors, shared by all scores and rules."""

import torch
from torch import Tensor

from fedimb.errors import DataError


def finite_rows(values: Tensor, what: str) -> Tensor:
    """``values`` [n, ...] unchanged.

    Args:
        what: what the rows are, for the message, such as ``embeddings``.

    Raises:
        DataError: a value is NaN or infinite; the message names the first such row.
    """
    if torch.isfinite(values.sum()):  # one pass without a mask of the same size; a sum may still overflow
        return values
    good = torch.isfinite(values).flatten(1).all(1) if values.ndim > 1 else torch.isfinite(values)
    if not bool(good.all()):
        first = int(torch.nonzero(~good)[0])
        raise DataError(
            f"{what} of {int((~good).sum())} of {len(values)} rows are NaN or infinite, first row {first}: "
            "look for bad input values there, or for a model that diverged"
        )
    return values


def labels_fit(labels: Tensor, rows: int, n_classes: int, what: str) -> Tensor:
    """Return ``labels`` unchanged if they are ``rows`` integers in 0..n_classes-1.

    Raises:
        DataError: otherwise.
    """
    if labels.ndim != 1 or len(labels) != rows or labels.dtype != torch.int64:
        raise DataError(
            f"{what}: need one int64 label per row, shape [{rows}]; got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if rows and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise DataError(
            f"{what}: labels run from {int(labels.min())} to {int(labels.max())}, outside 0..{n_classes - 1}: "
            "every site needs the federation's class list"
        )
    return labels


def rows_not_dead(features: Tensor) -> Tensor:
    """A model's own features [n, d] unchanged.

    Raises:
        DataError: those of a row are all zero, so they have no direction.
    """
    if dead := int((features == 0).flatten(1).all(1).sum()):
        raise DataError(
            f"the model's features are all zero for {dead} of {len(features)} rows: its units are dead, mostly because "
            "of too great a learning rate; lower local.lr, or use another model"
        )
    return features
