"""Coverage-centric selection: drop the hardest rows, then sample evenly from all levels of difficulty.

Zheng et al., "Coverage-centric Coreset Selection for High Pruning Rates", ICLR 2023. Difficulty is the area under the
margin (Pleiss et al., NeurIPS 2020): the mean over epochs of the label's score minus the best other; here of
probabilities, because the warm-up stores those. Low is hard.
"""

import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.budgets import apportion
from fedimb.selection.coresets.base import Candidates, CoresetRule


def area_under_margin(history: Tensor, labels: Tensor) -> Tensor:
    """[e, n, C] probabilities, [n] int64 -> [n] float32 in [-1, 1]; with a single class the probability itself."""
    own = labels.expand(history.shape[:2])[..., None]
    others = history.scatter(2, own, -torch.inf).amax(2)
    return (history.gather(2, own)[..., 0] - torch.where(torch.isinf(others), 0.0, others)).mean(0)


@register("coreset", "ccs")
class CoverageCentric(CoresetRule):
    """Drops the hardest rows, splits the remaining range into bins of equal width, and draws evenly from the bins.

    Args:
        beta: share of the rows dropped as too hard; fewer if the budget needs them.
        bins: number of bins; 50 in the paper.

    Raises:
        ConfigError: beta outside [0, 1], or no bin.
    """

    needs = frozenset({"history"})

    def __init__(self, beta: float = 0.1, bins: int = 50) -> None:
        self.beta = in_range("coreset 'ccs'", "beta", beta, 0, 1)
        if bins < 1:
            raise ConfigError(f"coreset 'ccs': bins={bins}: give at least 1")
        self.bins = bins

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """Bin by bin."""
        margin = area_under_margin(candidates.given("history")[:, rows], candidates.labels[rows]).double()
        cut = min(int(self.beta * len(rows) + 1e-9), len(rows) - count)
        easier = torch.argsort(margin, stable=True)[cut:]
        rows, margin = rows[easier], margin[easier]
        low, high = float(margin[0]), float(margin[-1])
        level = (margin - low) / (high - low) if high > low else torch.zeros_like(margin)
        level = (level * self.bins).long().clamp(max=self.bins - 1)
        have = torch.bincount(level, minlength=self.bins)
        # If there are fewer rows to keep than filled bins, the bins are drawn.
        even = 1 + 1e-9 * torch.rand(self.bins, generator=candidates.generator, dtype=torch.float64)
        wanted = apportion(have, even, count)
        mixed = torch.randperm(len(rows), generator=candidates.generator)
        by_bin = mixed[torch.argsort(level[mixed], stable=True)]
        rank = torch.arange(len(rows)) - (have.cumsum(0) - have)[level[by_bin]]
        return rows[by_bin[rank < wanted[level[by_bin]]]]
