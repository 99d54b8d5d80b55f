"""C2TC as a coreset: as many clusters as rows are kept, more where a class is spread out, and of each its middle row.

The clusters are those of `fedimb.selection.condensation`, whose total squared distance within clusters is small over
all classes. The paper keeps the centroids; a coreset keeps rows, so each cluster is stood for by the row nearest to its
centroid. These rows stay at the client, so no cluster has a smallest size; where centroids leave, it has
(`strategy=c2tc`).
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.condensation import condense
from fedimb.selection.coresets.base import Candidates, CoresetRule


@register("coreset", "c2tc")
class CondensedClasses(CoresetRule):
    """The row nearest to the centroid of each cluster; rows per class by how spread out the class is."""

    needs = frozenset({"embeddings"})

    def decide(self, candidates: Candidates, keep: int) -> Tensor:
        """Clusters over all classes, whichever lower the total squared distance most; at least one of each class while
        ``keep`` allows."""
        return middle_rows(candidates.given("embeddings"), candidates.labels, keep)

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """``count`` clusters of these rows, whatever their class."""
        return rows[middle_rows(candidates.given("embeddings")[rows], torch.zeros_like(rows), count)]


def middle_rows(points: Tensor, labels: Tensor, count: int) -> Tensor:
    """[count] int64: of each of ``count`` clusters the row nearest to its centroid; ties to the earlier row."""
    found = condense(points, labels, count, flat=True)
    near = [
        rows[int(((points[rows].double() - centre) ** 2).sum(1).argmin())]
        for rows, centre in zip(found.rows, found.centres, strict=True)
    ]
    return torch.stack(near)
