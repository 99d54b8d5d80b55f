"""Equal shares of pseudo-classes: the base of FairFAL and its ablations."""

import torch
from torch import Tensor

from fedimb.errors import ConfigError, nearest
from fedimb.selection.prototypes import class_prototypes, pseudo_labels
from fedimb.selection.queries.base import QueryInput, QueryRule
from fedimb.selection.quota import Leftover, class_quota

LEFTOVERS = ("largest", "random", "rarest_labelled_first")


def check_leftover(rule: str, leftover: Leftover) -> Leftover:
    """The policy, if its name is valid; ConfigError otherwise."""
    if leftover not in LEFTOVERS:
        raise ConfigError(f"query '{rule}': leftover={leftover!r}.{nearest(leftover, LEFTOVERS)}")
    return leftover


class PrototypeQuota(QueryRule):
    """Buckets by nearest prototype in the global model's features, a quota for each, and `pick` inside.

    The prototypes are the client's own, or ``query.prototypes`` if the caller shares them. Without any prototype the
    whole pool is one bucket. Notes ``bucket`` [C] and ``quota`` [C]: rows of each pseudo-class in the pool and in the
    selection.
    """

    models = frozenset({"global"})
    leftover: Leftover = "largest"

    def pick(self, query: QueryInput, label: int, rows: Tensor, count: int) -> Tensor:
        """``count`` of the ``rows`` (positions in the pool) with pseudo-class ``label``; 1 <= count <= len(rows)."""
        raise NotImplementedError(f"{type(self).__name__} must implement pick()")

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`. By class id, in each class in the order picked."""
        pool, labelled = query.pool["global"], query.labelled["global"]
        prototypes = query.prototypes
        if prototypes is None:
            prototypes = class_prototypes(labelled.features, query.labels, query.n_classes)
        if prototypes.shape != (query.n_classes, pool.features.shape[1]):
            wanted = (query.n_classes, pool.features.shape[1])
            raise ValueError(f"shared prototypes {tuple(prototypes.shape)} do not match the features: give {wanted}")
        bucket = pseudo_labels(pool.features, prototypes).clamp_min(0)
        sizes = bucket.bincount(minlength=query.n_classes)
        known = query.labels.bincount(minlength=query.n_classes)
        quota = class_quota(sizes, query.budget, self.leftover, labelled=known, generator=query.generator)
        query.notes.update(bucket=sizes, quota=quota)
        return torch.cat(
            [
                self.pick(query, label, (bucket == label).nonzero().flatten(), count)
                for label, count in enumerate(quota.tolist())
                if count > 0
            ]
        )
