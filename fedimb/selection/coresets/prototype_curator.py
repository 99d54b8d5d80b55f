"""Prototype-driven curation: all unusual rows, a spread-out sample of the usual ones, no outliers.

CheXficient (arXiv 2602.22843) and its code: k-means prototypes, 20 iterations, on unit embeddings; within a cluster, by
mean mu and deviation sd of the distances to the prototype: core up to mu + sd, periphery up to mu + 2 sd, tail up to
mu + 3 sd, kept completely; beyond that are outliers, which are dropped. Core and periphery share the budget in
proportion to the root of their sizes, by farthest-point sampling. Unlike the paper, rows are chosen once instead of
batch by batch (no moving averages), and budgets are exact: a tail larger than the budget is sampled too, and outliers,
nearest first, are taken when nothing else is left.
"""

import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.selection.budgets import apportion
from fedimb.selection.coresets.base import Candidates, CoresetRule
from fedimb.selection.coverage import k_center_greedy, k_means

CORE, PERIPHERY, TAIL, OUTLIER = range(4)


def zones(points: Tensor, centres: Tensor, clusters: Tensor) -> tuple[Tensor, Tensor]:
    """Zone (`CORE` .. `OUTLIER`) and distance beyond the cluster's mean in standard deviations, both [n].

    If a cluster's distances do not differ (below 1e-6), all its rows are core.
    """
    distance = (points - centres[clusters]).double().norm(dim=1)
    size = torch.bincount(clusters, minlength=len(centres)).clamp(min=1)
    mean = torch.bincount(clusters, weights=distance, minlength=len(centres)) / size
    variance = torch.bincount(clusters, weights=(distance - mean[clusters]) ** 2, minlength=len(centres)) / size
    deviation = variance.sqrt()[clusters]
    beyond = torch.where(deviation > 1e-6, (distance - mean[clusters]) / deviation.clamp(min=1e-6), 0.0)
    return (beyond > 1).long() + (beyond >= 2).long() + (beyond >= 3).long(), beyond


@register("coreset", "prototype_curator")
class PrototypeCurator(CoresetRule):
    """Tail, then core and periphery by quota, then outliers; within each class if numbers per class are given.

    Args:
        prototypes: number of clusters, at most one per two rows.

    Raises:
        ConfigError: no prototype.
    """

    needs = frozenset({"embeddings"})

    def __init__(self, prototypes: int = 32) -> None:
        if prototypes < 1:
            raise ConfigError(f"coreset 'prototype_curator': prototypes={prototypes}: give at least 1")
        self.prototypes = prototypes

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """Zone by zone."""
        points = candidates.given("embeddings")[rows].float()
        clusters_wanted = min(self.prototypes, max(1, len(rows) // 2))
        centres, clusters = k_means(points, clusters_wanted, candidates.generator)
        zone, beyond = zones(points, centres, clusters)
        tail = torch.nonzero(zone == TAIL).flatten()
        if len(tail) > count:
            return rows[tail[k_center_greedy(points[tail], count)]]
        usual = torch.nonzero(zone < TAIL).flatten()
        wanted = min(len(usual), count - len(tail))
        cell = 2 * clusters[usual] + zone[usual]
        have = torch.bincount(cell, minlength=2 * len(centres))
        chosen = [tail]
        for c, quota in enumerate(apportion(have, have.double().sqrt(), wanted).tolist()):
            if quota:
                members = usual[cell == c]
                chosen.append(members[k_center_greedy(points[members], quota)])
        outliers = torch.nonzero(zone == OUTLIER).flatten()
        nearest = outliers[torch.argsort(beyond[outliers], stable=True)]
        return rows[torch.cat([*chosen, nearest[: count - len(tail) - wanted]])]
