"""A class quota by the true labels: what perfect pseudo-labels would give. Never ranked.

If FairFAL is no better than `quota_random`, and that is no better than this rule, its gain is only class balance.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.queries.base import QueryInput, QueryRule
from fedimb.selection.queries.prototype_quota import check_leftover
from fedimb.selection.quota import Leftover, class_quota


@register("query", "oracle_balanced")
class OracleBalanced(QueryRule):
    """The same quota over hidden classes, with random rows inside a class. Reads no model.

    Args:
        leftover: see `fedimb.selection.quota.class_quota`.

    Raises:
        ConfigError: no such policy.
    """

    oracle = True

    def __init__(self, leftover: Leftover = "largest") -> None:
        self.leftover = check_leftover("oracle_balanced", leftover)

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        if query.hidden is None:
            raise ValueError("oracle_balanced needs the hidden labels of the pool")
        sizes = query.hidden.bincount(minlength=query.n_classes)
        known = query.labels.bincount(minlength=query.n_classes)
        quota = class_quota(sizes, query.budget, self.leftover, labelled=known, generator=query.generator)
        query.notes.update(quota=quota)
        mixed = torch.randperm(query.size, generator=query.generator)
        true = query.hidden[mixed]
        return torch.cat([mixed[true == label][:count] for label, count in enumerate(quota.tolist())])
