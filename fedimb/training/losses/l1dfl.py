"""L1DFL: a Dice loss whose elements are weighted inversely to the density of their errors, plus focal loss.

Dzikunu et al., "L1DFL: Adaptive L1-weighted Dice Focal Loss", arXiv 2502.02756, with their code's bins: p the softmax
and t the one-hot labels of a batch, g = |p - t| of all N = n C elements, bins of width epsilon around 0, epsilon, ...,
1, of which the first and the last are half as wide. An element in a bin with k elements and width w has the weight
b = N w / k, taken as a constant. With the sums over the rows,

    dice_c = (2 sum b p t + 1e-8) / (sum b (p^2 + t^2) + 1e-8),  l = 1 - mean_c dice_c + focal loss

The paper segments voxels; here a row is what a voxel is there, and the focal loss is the mean over rows of `focal`.
A class that no row of the batch has contributes a Dice of about 0, as there: use batches with rows of most classes.
"""

import torch
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.training.losses.base import in_range, targets_of
from fedimb.training.losses.focal import focal_rows

_LEAST = 1e-8


@register("loss", "l1dfl", adjusts_logits=False, needs_prior=False, stackable=False)
class L1WeightedDiceFocal(nn.Module):
    """Dice loss with weights by the density of errors, plus focal loss.

    It is a loss of a batch, not of rows: clients are trained one at a time, and ``local.label_smoothing`` is refused.

    Args:
        gamma: focusing exponent of the focal loss, at least 0; the paper's is 2.
        epsilon: width of a bin, above 0 and at most 1; the paper's is .05.

    Raises:
        ConfigError: an argument outside its range.
    """

    centres: Tensor

    def __init__(self, gamma: float = 2.0, epsilon: float = 0.05) -> None:
        super().__init__()
        self.gamma = in_range("l1dfl", "gamma", gamma, 0)
        if in_range("l1dfl", "epsilon", epsilon, 0, 1) == 0:
            raise ConfigError("loss 'l1dfl': epsilon=0: give the width of a bin, above 0 and at most 1")
        self.epsilon = epsilon
        bins = int(1 / epsilon + 1e-9) + 1
        self.register_buffer("centres", torch.linspace(0, 1, bins), persistent=False)

    @torch.no_grad()
    def weights(self, errors: Tensor) -> Tensor:
        """Errors g in [0, 1], of any shape -> weights N w / k of the same shape, float32."""
        low = (self.centres - self.epsilon / 2).clamp_min(0)
        width = (self.centres + self.epsilon / 2).clamp_max(1) - low
        bin_of = (torch.bucketize(errors, low, right=True) - 1).clamp(0, len(low) - 1)
        counts = bin_of.new_zeros(len(low)).scatter_add_(0, bin_of.flatten(), torch.ones_like(bin_of).flatten())
        return errors.numel() * width[bin_of] / counts[bin_of]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] float32 and labels [n] int64 -> scalar."""
        p, targets = logits.softmax(-1), targets_of(logits, labels)
        weights = self.weights((p - targets).abs())
        shared = 2 * (weights * p * targets).sum(0) + _LEAST
        dice = shared / ((weights * (p.square() + targets)).sum(0) + _LEAST)
        return 1 - dice.mean() + focal_rows(logits, labels, self.gamma).mean()
