"""k-centre: rows such that no row is far from a kept one in feature space, whatever its class.

Sener and Savarese, ICLR 2018, the greedy rule. See `coverage.k_center_greedy`.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, CoresetRule
from fedimb.selection.coverage import k_center_greedy


@register("coreset", "k_center")
class KCenter(CoresetRule):
    """Farthest-point greedy on penultimate features, Euclidean, from a first row drawn at random.

    Example:
        >>> rows = torch.tensor([[0.0], [0.1], [5.0], [9.9], [10.0]])
        >>> one_class = torch.zeros(5, dtype=torch.int64)
        >>> have = Candidates(labels=one_class, n_classes=2, generator=torch.Generator().manual_seed(0), features=rows)
        >>> KCenter().select(have, keep=3).tolist()
        [0, 2, 4]
    """

    needs = frozenset({"features"})

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """In the order chosen."""
        first = int(torch.randint(len(rows), (1,), generator=candidates.generator))
        return rows[k_center_greedy(candidates.given("features")[rows], count, first=first)]
