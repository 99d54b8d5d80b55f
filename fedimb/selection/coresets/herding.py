"""Herding: in each class, the rows whose mean stays closest to the class mean in feature space.

Welling, "Herding Dynamical Weights to Learn", ICML 2009; used as in iCaRL (CVPR 2017). See `coverage.herd`.
"""

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, ClasswiseRule
from fedimb.selection.coverage import herd


@register("coreset", "herding")
class Herding(ClasswiseRule):
    """Greedy mean matching within each class on penultimate features."""

    needs = frozenset({"features"})

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """In the order chosen."""
        return rows[herd(candidates.given("features")[rows], count)]
