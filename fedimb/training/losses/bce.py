"""Binary cross-entropy: every class against the rest, the baseline if rows may have several labels.

With p_c = sigmoid(z_c) and targets t_c, a row's loss is -sum over c of t_c log p_c + (1 - t_c) log(1 - p_c): a sum, so
that a class has the same weight for any number of classes. One label per row is a one-hot target. An unknown cell
(t_c NaN, a class that the client does not annotate) has no term: partial binary cross-entropy, as in Durand et al.,
CVPR 2019, without their rescaling by the known share.
"""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fedimb.registry import register
from fedimb.training.losses.base import BOTH, RowLoss, known_targets, over_known


@register("loss", "bce", adjusts_logits=False, needs_prior=False, stackable=True, tasks=BOTH, unknown_labels=("cells",))
class BinaryCrossEntropy(RowLoss):
    """Mean over rows of the sum of the classes' binary cross-entropies."""

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and targets [..., C] or labels [...] int64 -> loss of each row [...]."""
        targets, unknown = known_targets(logits, labels)
        return over_known(binary_cross_entropy_with_logits(logits, targets, reduction="none"), unknown)
