"""GHM-C: elements whose gradient is like many others' count less, the very easy and the outliers alike.

Li, Liu and Wang, "Gradient Harmonized Single-stage Detector", AAAI 2019, eqs. 4 to 8: with one sigmoid per class and
g = |p - t|, the size of binary cross-entropy's gradient in the logit, an element's weight is N / GD(g), where N is the
number of elements (rows x classes) of the batch and GD(g) = M x (elements whose g falls into the same one of M equal
bins of [0, 1]) their density. An even density gives every element the weight 1, which is `bce`. The loss is the sum
over classes and the mean over rows, as in `bce`; the paper divides by N.

The density is that of one batch: the paper's moving average over batches is left out, because a loss keeps no state.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount
from fedimb.training.losses.base import BOTH, in_range, targets_of


@register("loss", "ghm", adjusts_logits=False, needs_prior=False, stackable=False, tasks=BOTH)
class GradientHarmonized(nn.Module):
    """Binary cross-entropies of all classes, each weighted inversely to the density of gradients like its own.

    It is a loss of a batch, not of rows: clients are trained one at a time, and ``local.label_smoothing`` is refused.

    Args:
        bins: M, number of bins of the gradient's size, at least 1; the paper's is 30.

    Raises:
        ConfigError: no bin.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[4.0], [4.0], [4.0], [-1.0]])  # three easy rows and one that is wrong
        >>> [round(weight, 2) for weight in GradientHarmonized(bins=2).weights(logits, torch.ones(4, 1))[:, 0].tolist()]
        [0.67, 0.67, 0.67, 2.0]
    """

    def __init__(self, bins: PositiveCount = 30) -> None:
        super().__init__()
        self.bins = int(in_range("ghm", "bins", bins, 1))

    @torch.no_grad()
    def weights(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits and targets [n, C] -> weights [n, C] float32, whose mean is at most 1."""
        size = (logits.sigmoid() - targets).abs()
        bin_of = (size * self.bins).long().clamp_max(self.bins - 1)
        counts = bin_of.new_zeros(self.bins).scatter_add_(0, bin_of.flatten(), torch.ones_like(bin_of).flatten())
        return logits.numel() / (counts[bin_of] * self.bins).to(logits.dtype)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] float32, labels [n] int64 or targets [n, C] -> scalar."""
        targets = targets_of(logits, labels)
        each = binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (self.weights(logits, targets) * each).sum(-1).mean()
