"""Base classes of the losses: each loss is the mean over rows of a per-row loss.

They accept any leading shape, so that one call handles a batch [n, C] or the batches of K clients [K, n, C]: what
differs between clients (such as a prior's shift) is then a buffer [K, 1, C] instead of [C].
"""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from fedimb.errors import ConfigError
from fedimb.registry import arguments


class RowLoss(nn.Module, ABC):
    """A loss that implements `rows`.

    Example:
        >>> import torch
        >>> class Squared(RowLoss):
        ...     def rows(self, logits, labels):
        ...         wanted = torch.nn.functional.one_hot(labels, logits.shape[-1])
        ...         return ((logits.softmax(-1) - wanted) ** 2).sum(-1)
        >>> Squared()(torch.zeros(2, 4), torch.tensor([0, 3])).item()
        0.75
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "rows" in vars(cls) and "loss_and_grad" not in vars(cls):  # an inherited one belongs to another loss
            cls.loss_and_grad = RowLoss.loss_and_grad  # type: ignore[method-assign]

    @abstractmethod
    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and labels [...] int64 -> loss of each row [...]."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] float32 and labels [n] int64 -> scalar mean over rows."""
        return self.rows(logits, labels).mean()

    def loss_and_grad(self, logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted losses of the rows, and the gradient of their sum in the logits, for a manual backward pass.

        Args:
            logits: [..., C] float32.
            labels: [...] int64.
            weights: [...] float32, one per row.

        Returns:
            losses [...] and gradient [..., C], without a graph.
        """
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            losses = self.rows(leaf, labels) * weights
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), gradient


class AdjustedCrossEntropy(RowLoss):
    """Cross-entropy of logits * factor + shift.

    Args:
        shift, factor: per class [C] float32, or None. Stored as buffers, not with the model.
    """

    shift: Tensor | None
    factor: Tensor | None

    def __init__(self, shift: Tensor | None = None, factor: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("factor", factor, persistent=False)

    def adjusted(self, logits: Tensor) -> Tensor:
        """Logits [..., C] times the factor plus the shift."""
        if self.factor is not None:
            logits = logits * self.factor
        return logits if self.shift is None else logits + self.shift

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and labels [...] int64 -> loss of each row [...]."""
        return row_cross_entropy(self.adjusted(logits), labels)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] float32 and labels [n] int64 -> scalar mean over rows."""
        return cross_entropy(self.adjusted(logits), labels)

    def loss_and_grad(self, logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """See `RowLoss.loss_and_grad`; (softmax - one-hot) * factor, a third of the cost of an autograd graph on a
        small batch."""
        label, weight = labels[..., None], weights[..., None]
        # Along the rows, where the CPU's vector units are used fully: eight times faster for a few classes.
        log_p = self.adjusted(logits.detach()).transpose(-1, -2).log_softmax(-2).transpose(-1, -2)
        losses = (log_p.gather(-1, label) * -weight)[..., 0]
        gradient = log_p.exp_().scatter_add_(-1, label, log_p.new_tensor(-1.0).expand(label.shape)).mul_(weight)
        return losses, gradient if self.factor is None else gradient * self.factor


def row_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row: logits [..., C], labels [...] -> [...]."""
    return cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)


def of_labels(values: Tensor, labels: Tensor) -> Tensor:
    """Values per class, [C] or [K, 1, C], indexed by the labels [...] -> [...]."""
    if values.dim() == 1:
        return values[labels]
    return values.expand(*labels.shape, values.shape[-1]).gather(-1, labels[..., None])[..., 0]


BOTH = ("multiclass", "multilabel")


def targets_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Targets [..., C] of 0 and 1 beside logits [..., C], in their dtype.

    Args:
        labels: [..., C] targets, one per class, or [...] int64 class ids.
    """
    if labels.dim() == logits.dim():
        return labels.to(logits.dtype)
    return one_hot(labels, logits.shape[-1]).to(logits.dtype)


def known_targets(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
    """`targets_of`, with 0 for an unknown cell (NaN), and which cells are unknown [..., C] bool; None: no cell can be.

    A loss must leave these cells out *after* it has computed with the 0: a NaN times 0 would still be NaN in the
    gradient.
    """
    targets = targets_of(logits, labels)
    if labels.dim() != logits.dim():
        return targets, None
    unknown = targets.isnan()
    return targets.masked_fill(unknown, 0.0), unknown


def over_known(each: Tensor, unknown: Tensor | None) -> Tensor:
    """The classes' losses [..., C] -> their sum over known cells [...]; an unknown cell has gradient 0."""
    return (each if unknown is None else each.masked_fill(unknown, 0.0)).sum(-1)


def in_range(
    loss: str, key: str, value: float, low: float, high: float = math.inf, *, high_allowed: bool = True
) -> float:
    """`fedimb.registry.arguments.in_range` for the loss of this name."""
    return arguments.in_range(f"loss '{loss}'", key, value, low, high, high_allowed=high_allowed)


def counts_at_client(loss: str, n_classes: int, local_counts: np.ndarray | None) -> np.ndarray:
    """A client's counts [C] as float64; all 1 if none are given, which makes corrections by counts cross-entropy.

    Raises:
        ConfigError: counts of another length, negative or not finite.
    """
    counts = np.ones(n_classes) if local_counts is None else np.asarray(local_counts, dtype=np.float64)
    if counts.shape != (n_classes,) or not np.isfinite(counts).all() or (counts < 0).any():
        raise ConfigError(
            f"loss '{loss}' needs one finite count >= 0 for each of {n_classes} classes; got {counts.tolist()}"
        )
    return counts
