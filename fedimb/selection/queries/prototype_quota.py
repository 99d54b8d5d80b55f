"""Equal shares of pseudo-classes: what FairFAL and its dissection share."""

import torch
from torch import Tensor

from fedimb.errors import ConfigError, nearest
from fedimb.selection.prototypes import class_prototypes, pseudo_labels
from fedimb.selection.queries.base import Asked, QueryRule
from fedimb.selection.quota import Leftover, class_quota

LEFTOVERS = ("largest", "random", "rarest_labelled_first")


def check_leftover(rule: str, leftover: Leftover) -> Leftover:
    """The policy, when there is one of that name; ConfigError otherwise."""
    if leftover not in LEFTOVERS:
        raise ConfigError(f"query '{rule}': leftover={leftover!r}.{nearest(leftover, LEFTOVERS)}")
    return leftover


class PrototypeQuota(QueryRule):
    """Buckets by nearest prototype in the global model's features, a quota for each, and `pick` inside.

    The prototypes are the client's own, or ``asked.prototypes`` where the caller shares them. With no prototype at all
    the whole pool is one bucket. Notes ``bucket`` [C] and ``quota`` [C], rows of each pseudo-class in the pool and in
    the answer.
    """

    models = frozenset({"global"})
    leftover: Leftover = "largest"

    def pick(self, asked: Asked, label: int, rows: Tensor, count: int) -> Tensor:
        """``count`` of the ``rows`` (positions in the pool) that fell to class ``label``; 1 <= count <= len(rows)."""
        raise NotImplementedError(f"{type(self).__name__} must implement pick()")

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`. By class id, in each class in the order picked."""
        pool, labelled = asked.pool["global"], asked.labelled["global"]
        prototypes = asked.prototypes
        if prototypes is None:
            prototypes = class_prototypes(labelled.features, asked.labels, asked.n_classes)
        if prototypes.shape != (asked.n_classes, pool.features.shape[1]):
            wanted = (asked.n_classes, pool.features.shape[1])
            raise ValueError(f"shared prototypes {tuple(prototypes.shape)} do not fit the features: give {wanted}")
        bucket = pseudo_labels(pool.features, prototypes).clamp_min(0)
        sizes = bucket.bincount(minlength=asked.n_classes)
        known = asked.labels.bincount(minlength=asked.n_classes)
        quota = class_quota(sizes, asked.budget, self.leftover, labelled=known, generator=asked.generator)
        asked.notes.update(bucket=sizes, quota=quota)
        return torch.cat(
            [
                self.pick(asked, label, (bucket == label).nonzero().flatten(), count)
                for label, count in enumerate(quota.tolist())
                if count > 0
            ]
        )
