"""Cross-entropy: the baseline every other loss is read against."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedimb.registry import register


@register("loss", "ce", adjusts_logits=False, needs_prior=False, stackable=True)
class CrossEntropy(nn.Module):
    """Mean cross-entropy of logits [n, C] float32 and labels [n] int64 -> scalar."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels)
