"""FairFAL's class quota with the highest entropy inside each pseudo-class: without its second stage. Ours.

The paper's ablation has this row (its choice of model plus prototypes, before the two-stage choice).
"""

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import Asked
from fedimb.selection.queries.prototype_quota import PrototypeQuota, check_leftover
from fedimb.selection.quota import Leftover
from fedimb.selection.uncertainty import highest, normalised_entropy


@register("query", "quota_entropy")
class QuotaEntropy(PrototypeQuota):
    """Args:
    leftover: see `fedimb.selection.quota.class_quota`.

    Raises:
        ConfigError: no such policy.
    """

    adaptive = True

    def __init__(self, leftover: Leftover = "largest") -> None:
        self.leftover = check_leftover("quota_entropy", leftover)

    def pick(self, asked: Asked, label: int, rows: Tensor, count: int) -> Tensor:
        """See `PrototypeQuota`."""
        return rows[highest(normalised_entropy(asked.pool[asked.which].logits[rows]), count)]
