"""Typical rows of clusters without a labelled row: for small budgets.

TypiClust: Hacohen, Dekel & Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets",
ICML 2022. The pool and the labelled rows are clustered together into min(labelled + b, ``clusters``); clusters with the
fewest labelled rows come first, of these the largest; each gives its most typical row, then the next in turn.
Typicality = 1 / the mean distance to the nearest ``neighbours`` rows of the cluster. Clusters of fewer than
``smallest`` rows come last.

Unlike the paper: its features are self-supervised, here they are the model's, of unit length; typicality is computed
once, including the labelled rows of the cluster, not after each pick; the number of k-means passes is limited.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.prototypes import unit
from fedimb.selection.queries.base import QueryInput, QueryRule
from fedimb.selection.queries.clusters import k_means

_CELLS = 2_000_000  # distances per block


def typicality(rows: Tensor, neighbours: int) -> Tensor:
    """1 / mean distance to the nearest others: [n, d] -> [n] float64. Infinite for rows that coincide, 0 for n = 1."""
    count = min(neighbours, len(rows) - 1)
    if count < 1:
        return torch.zeros(len(rows), dtype=torch.float64)
    wide = rows.double()
    found = []
    for block in torch.arange(len(rows)).split(max(1, _CELLS // len(rows))):
        apart = torch.cdist(wide[block], wide)
        apart[torch.arange(len(block)), block] = torch.inf
        found.append(apart.topk(count, largest=False).values.mean(1))
    return 1 / torch.cat(found)


@register("query", "typiclust")
class TypiClust(QueryRule):
    """Typical rows of clusters without a labelled row, for small budgets.

    Args:
        clusters: maximum number of clusters.
        neighbours: number of nearest rows whose mean distance is used.
        smallest: clusters with fewer rows come last.
        passes: maximum number of passes of Lloyd's algorithm.

    Raises:
        ConfigError: any of them below 1.
    """

    adaptive = True

    def __init__(self, clusters: int = 500, neighbours: int = 20, smallest: int = 5, passes: int = 10) -> None:
        given = {"clusters": clusters, "neighbours": neighbours, "smallest": smallest, "passes": passes}
        checked = {key: int(in_range("query 'typiclust'", key, value, 1)) for key, value in given.items()}
        self.clusters, self.neighbours, self.smallest, self.passes = checked.values()

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        n, m = query.size, len(query.labels)
        rows = unit(torch.cat([query.pool[query.which].features, query.labelled[query.which].features])).float()
        cluster, _ = k_means(rows, min(m + query.budget, self.clusters), query.generator, self.passes)
        k = int(cluster.max()) + 1
        sizes, covered = cluster.bincount(minlength=k), cluster[n:].bincount(minlength=k)
        turn = torch.empty(n, dtype=torch.int64)  # 0 for the most typical of its cluster's pool rows, and so on
        by_cluster = cluster.argsort(stable=True).split(sizes.tolist())
        for members in by_cluster:
            typical = typicality(rows[members], self.neighbours)
            ranked = members[typical.argsort(descending=True, stable=True)]
            ranked = ranked[ranked < n]
            turn[ranked] = torch.arange(len(ranked))
        order = sizes.argsort(descending=True, stable=True)
        order = order[covered[order].argsort(stable=True)]
        place = torch.empty_like(order)
        place[order] = torch.arange(k)
        own = cluster[:n]
        late = (sizes[own] < self.smallest).long()
        return ((late * n + turn) * k + place[own]).argsort(stable=True)[: query.budget]
