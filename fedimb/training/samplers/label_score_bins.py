"""Rows by how far their labels are from the average row: unusual combinations are drawn as often as usual ones.

HACO, arXiv 2505.11152, "balanced contact sampling": with c_i the 0/1 labels of row i, m their mean over the rows and V
the number of labels, a row's score is (c_i'(1 - m) - c_i'm) / V, high for rows with many or rare labels. The range of
scores is cut into bins that are spaced logarithmically with base beta, and each bin is drawn equally often. So far the
paper; our reading of it: of K bins between the lowest and the highest score the k-th ends at the share
(beta^(k/K) - 1) / (beta - 1) of the range, so that low scores, which most rows have, get the narrow bins; empty bins
are skipped, and rows of a bin are drawn uniformly with replacement.
"""

import math

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount, in_range
from fedimb.training.losses.base import targets_of
from fedimb.training.samplers.draw import draw_by_class


@register("sampler", "label_score_bins", resamples=True)
class LabelScoreBins:
    """A bin of label scores uniformly, then one of its rows uniformly, with replacement.

    Args:
        bins: K, at least 1; 1 draws rows uniformly.
        base: beta, above 1; the paper's is 5.

    Raises:
        ConfigError: no bin, or a base of at most 1.

    Example:
        >>> import torch
        >>> targets = torch.tensor([[1.0, 0.0]] * 8 + [[1.0, 1.0]])
        >>> [round(score, 2) for score in scores(targets)[[0, 8]].tolist()]
        [-0.5, -0.11]
    """

    needs_targets = True
    """It gets the 0/1 targets [n, C] of rows with several labels, not their primary class."""

    def __init__(self, bins: PositiveCount = 10, base: float = 5.0) -> None:
        where = "sampler 'label_score_bins'"
        self.bins = int(in_range(where, "bins", bins, 1))
        self.base = in_range(where, "base", base, 1, low_allowed=False)

    def epoch(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Targets [n, C] of 0 and 1, or labels [n] int64 -> positions [n] int64."""
        if len(labels) == 0:
            return torch.empty(0, dtype=torch.int64, device=labels.device)
        if labels.dim() == 1:
            labels = targets_of(labels.new_zeros(len(labels), int(labels.max()) + 1, dtype=torch.float64), labels)
        return draw_by_class(bins_of(scores(labels), self.bins, self.base), torch.ones_like, generator)


def scores(targets: Tensor) -> Tensor:
    """Targets [n, C] of 0 and 1 -> scores [n] float64."""
    mean = targets.double().mean(dim=0)
    return targets.double() @ (1 - 2 * mean) / targets.shape[1]


def bins_of(values: Tensor, bins: int, base: float) -> Tensor:
    """Values [n] -> the number [n] int64 of the bin of each, from 0, narrow bins first; 0 if all values are equal."""
    low, high = values.min(), values.max()
    share = (values - low) / (high - low) if high > low else torch.zeros_like(values)
    position = bins * (share * (base - 1)).log1p() / math.log(base)
    return (position + 1e-9).long().clamp_max(bins - 1)
