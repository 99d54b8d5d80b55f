"""Cross-entropy: the baseline for all other losses."""

from fedimb.registry import register
from fedimb.training.losses.base import AdjustedCrossEntropy


@register("loss", "ce", adjusts_logits=False, needs_prior=False, stackable=True)
class CrossEntropy(AdjustedCrossEntropy):
    """Mean cross-entropy of logits [n, C] float32 and labels [n] int64 -> scalar."""

    def __init__(self) -> None:
        super().__init__()
