"""FairFAL's class quota with the highest entropy inside each pseudo-class: FairFAL without its second stage.

The paper's ablation contains this variant (choice of model plus prototypes, without the two-stage choice).
"""

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import QueryInput
from fedimb.selection.queries.prototype_quota import PrototypeQuota, check_leftover
from fedimb.selection.quota import Leftover
from fedimb.selection.uncertainty import highest, normalised_entropy


@register("query", "quota_entropy")
class QuotaEntropy(PrototypeQuota):
    """FairFAL's class quota; the highest entropy inside each pseudo-class.

    Args:
        leftover: see `fedimb.selection.quota.class_quota`.

    Raises:
        ConfigError: no such policy.
    """

    adaptive = True

    def __init__(self, leftover: Leftover = "largest") -> None:
        self.leftover = check_leftover("quota_entropy", leftover)

    def pick(self, query: QueryInput, label: int, rows: Tensor, count: int) -> Tensor:
        """See `PrototypeQuota`."""
        return rows[highest(normalised_entropy(query.pool[query.which].logits[rows]), count)]
