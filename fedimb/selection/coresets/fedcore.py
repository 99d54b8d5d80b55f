"""FedCore: in each class, the k-medoids of the rows' last-layer gradients.

FedCore (ICC 2024), following its released code: FasterPAM with Euclidean distances on last-layer gradients, per class.
There each medoid is weighted by its cluster's size and slow clients choose again each round; here rows are chosen once,
for comparison at one kept fraction, and have equal weight. The gradient is (p - onehot) outer (f, 1), which is never
built: <g_i, g_j> = <r_i, r_j> (<f_i, f_j> + 1). In addition, classes of more than ``most_rows`` rows are split at
random into equal parts that share the quota, so that memory and time stay at O(most_rows^2) per part.
"""

import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.selection.budgets import apportion
from fedimb.selection.coresets.base import Candidates, ClasswiseRule
from fedimb.selection.medoids import k_medoids


def gradient_distances(residuals: Tensor, features: Tensor) -> Tensor:
    """[n, C], [n, d] -> [n, n] float64 Euclidean distances between last-layer gradients (weights and bias)."""
    r, f = residuals.double(), features.double()
    inner = (r @ r.T) * (f @ f.T + 1)
    squares = inner.diagonal()
    distances = (squares[:, None] + squares - 2 * inner).clamp(min=0).sqrt()
    return distances.fill_diagonal_(0)


@register("coreset", "fedcore")
class FedCore(ClasswiseRule):
    """Medoids of each class.

    Args:
        most_rows: maximum number of rows compared with each other at once; 2,048 take 34 MB per matrix.
        passes: maximum number of passes of FasterPAM.

    Raises:
        ConfigError: either below 1.
    """

    needs = frozenset({"features", "logits"})

    def __init__(self, most_rows: int = 2048, passes: int = 5) -> None:
        for key, value in (("most_rows", most_rows), ("passes", passes)):
            if value < 1:
                raise ConfigError(f"coreset 'fedcore': {key}={value}: give at least 1")
        self.most_rows, self.passes = most_rows, passes

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """Part by part."""
        onehot = torch.nn.functional.one_hot(candidates.labels[rows], candidates.n_classes)
        residuals = candidates.given("logits")[rows].softmax(1) - onehot
        features = candidates.given("features")[rows]
        mixed = torch.randperm(len(rows), generator=candidates.generator)
        parts = mixed.tensor_split(-(-len(rows) // self.most_rows)) if len(rows) > self.most_rows else (mixed,)
        have = torch.tensor([len(part) for part in parts])
        chosen = []
        for part, quota in zip(parts, apportion(have, have, count).tolist(), strict=True):
            distances = gradient_distances(residuals[part], features[part])
            chosen.append(part[k_medoids(distances, quota, candidates.generator, self.passes)])
        return rows[torch.cat(chosen)]
