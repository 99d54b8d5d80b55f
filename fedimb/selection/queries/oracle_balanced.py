"""The class balance a quota aims at, by the true labels: what a perfect pseudo-label would give. Never ranked. Ours.

If FairFAL does no better than `quota_random`, and that no better than this, its gain is class balance and nothing else.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import Asked, QueryRule
from fedimb.selection.queries.prototype_quota import check_leftover
from fedimb.selection.quota import Leftover, class_quota


@register("query", "oracle_balanced")
class OracleBalanced(QueryRule):
    """The same quota over hidden classes, rows inside a class at random. Reads no model.

    Args:
        leftover: see `fedimb.selection.quota.class_quota`.

    Raises:
        ConfigError: no such policy.
    """

    oracle = True

    def __init__(self, leftover: Leftover = "largest") -> None:
        self.leftover = check_leftover("oracle_balanced", leftover)

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`."""
        if asked.hidden is None:
            raise ValueError("oracle_balanced needs the hidden labels of the pool")
        sizes = asked.hidden.bincount(minlength=asked.n_classes)
        known = asked.labels.bincount(minlength=asked.n_classes)
        quota = class_quota(sizes, asked.budget, self.leftover, labelled=known, generator=asked.generator)
        asked.notes.update(quota=quota)
        mixed = torch.randperm(asked.size, generator=asked.generator)
        true = asked.hidden[mixed]
        return torch.cat([mixed[true == label][:count] for label, count in enumerate(quota.tolist())])
