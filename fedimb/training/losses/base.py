"""What the losses have in common: each is the mean over rows of a row's own loss.

Written for any leading shape, so that one call serves a batch [n, C] or the batches of K clients [K, n, C]: what
differs from client to client (a prior's shift, say) is then a buffer [K, 1, C] where one client has [C].
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class RowLoss(nn.Module, ABC):
    """A loss that implements `rows`."""

    @abstractmethod
    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and labels [...] int64 -> loss of each row [...]."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] float32 and labels [n] int64 -> scalar mean over rows."""
        return self.rows(logits, labels).mean()


class AdjustedCrossEntropy(RowLoss):
    """Cross-entropy of logits a subclass may change first."""

    def adjusted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] and labels [...] -> the logits that are scored [..., C]."""
        return logits

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and labels [...] int64 -> loss of each row [...]."""
        return row_cross_entropy(self.adjusted(logits, labels), labels)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] float32 and labels [n] int64 -> scalar mean over rows."""
        return cross_entropy(self.adjusted(logits, labels), labels)


def row_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row: logits [..., C], labels [...] -> [...]."""
    return cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)


def of_labels(values: Tensor, labels: Tensor) -> Tensor:
    """A value per class, [C] or [K, 1, C], taken at the labels [...] -> [...]."""
    if values.dim() == 1:
        return values[labels]
    return values.expand(*labels.shape, values.shape[-1]).gather(-1, labels[..., None])[..., 0]
