"""Labels as 0/1 targets, for losses that score every class separately, with one or several labels per row."""

from torch import Tensor
from torch.nn.functional import one_hot

BOTH = ("multiclass", "multilabel")


def targets_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Targets [..., C] of 0 and 1 for logits [..., C], in the logits' dtype.

    Args:
        labels: [..., C] targets, one per class, or [...] int64 class ids.
    """
    if labels.dim() == logits.dim():
        return labels.to(logits.dtype)
    return one_hot(labels, logits.shape[-1]).to(logits.dtype)
