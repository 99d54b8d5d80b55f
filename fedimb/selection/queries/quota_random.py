"""FairFAL's class quota alone, as an ablation: inside each pseudo-class rows are drawn at random."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import QueryInput
from fedimb.selection.queries.prototype_quota import PrototypeQuota, check_leftover
from fedimb.selection.quota import Leftover


@register("query", "quota_random")
class QuotaRandom(PrototypeQuota):
    """FairFAL's class quota; random rows inside each pseudo-class.

    Args:
        leftover: see `fedimb.selection.quota.class_quota`.

    Raises:
        ConfigError: no such policy.
    """

    def __init__(self, leftover: Leftover = "largest") -> None:
        self.leftover = check_leftover("quota_random", leftover)

    def pick(self, query: QueryInput, label: int, rows: Tensor, count: int) -> Tensor:
        """See `PrototypeQuota`."""
        return rows[torch.randperm(len(rows), generator=query.generator)[:count]]
