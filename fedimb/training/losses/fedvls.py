"""FedVLS: cross-entropy shifted by the client's class shares, and a push-down of the logits of wrong classes.

Guo et al., "Exploring Vacant Classes in Label-Skewed Federated Learning", AAAI 2025: with pi_c the shares at this
client, l = CE(z + log(pi + 1e-9), y) + w sum_c pi_c (log sum_i exp(s_ic) - log n) over the n rows of a batch, where
s_ic = z_ic - log(pi_c + 1e-9) + log(1/C + 1e-9) for c != y_i, and s_ic = 0 for c = y_i: the label's entry stays in
the sum as exp(0).

The second part is one of the batch, not of a row. The third part of the method, distillation over the classes that the
client lacks, is the local objective `distil` with temperature 1: ``aggregator=distil aggregator.weight=0.1
aggregator.temperature=1 aggregator.absent_only=true`` (0.1 for MNIST and CIFAR-10, 0.5 otherwise).
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedimb.registry import register
from fedimb.registry.arguments import NonNegative
from fedimb.training.losses.base import counts_at_client, in_range

FLOOR = 1e-9


@register("loss", "fedvls", adjusts_logits=True, needs_prior=False, uses_local_counts=True, stackable=False)
class FedVLS(nn.Module):
    """Cross-entropy shifted by this client's class shares, and a suppression of the logits of wrong classes.

    Args:
        n_classes: C (given by fedimb).
        suppression: weight w of the second part, >= 0; 0 with equal counts is cross-entropy.
        local_counts: rows of each class that this client trains on [C] (given by fedimb in every run); without them
            all shares are equal.

    Raises:
        ConfigError: a negative suppression, or counts of another length, negative or not finite.
    """

    shares: Tensor
    shift: Tensor

    def __init__(
        self, n_classes: int, suppression: NonNegative = 0.005, local_counts: np.ndarray | None = None
    ) -> None:
        super().__init__()
        self.suppression = in_range("fedvls", "suppression", suppression, 0)
        counts = counts_at_client("fedvls", n_classes, local_counts)
        shares = counts / max(counts.sum(), 1.0)
        self.uniform = math.log(1 / n_classes + FLOOR)
        self.register_buffer("shares", torch.from_numpy(shares).to(torch.float32), persistent=False)
        self.register_buffer("shift", torch.from_numpy(np.log(shares + FLOOR)).to(torch.float32), persistent=False)

    def parts(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, C] and labels [n] int64 -> the shifted cross-entropy and the unweighted suppression, scalars."""
        others = (logits - self.shift + self.uniform).scatter(1, labels[:, None], 0.0)
        pushed = others.logsumexp(dim=0) - math.log(len(labels))
        return cross_entropy(logits + self.shift, labels), (self.shares * pushed).sum()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] float32 and labels [n] int64 -> scalar."""
        shifted, suppressed = self.parts(logits, labels)
        return shifted + self.suppression * suppressed
