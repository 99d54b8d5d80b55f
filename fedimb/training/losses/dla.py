"""Distribution-aware logit adjustment: cross-entropy shifted by a blend of the federation's and the client's shares.

FedYoYo, ICCV 2025: p = (1 - gamma) P + gamma pi_k, P the class shares of the federation and pi_k the client's own;
CE(z + log(p^tau + 1e-9), y). FedYoYo estimates P from features (`fedimb.strategies.fedyoyo`); without it P is the run's
prior. Blended once per round: the paper's code blends p again in every batch, so that after some 30 batches only the
client's own shares are left.
"""

import numpy as np
import torch

from fedimb.registry import register
from fedimb.registry.arguments import NonNegative, Share
from fedimb.training.losses.base import AdjustedCrossEntropy, counts_at_client, in_range

_LEAST = 1e-9


@register("loss", "dla", adjusts_logits=True, needs_prior=True, uses_local_counts=True, stackable=True)
class DistributionAwareAdjustment(AdjustedCrossEntropy):
    """Cross-entropy of z + log(p^tau + 1e-9), p a blend of the federation's and the client's class shares.

    Args:
        n_classes: C (given by fedimb).
        gamma: weight of the client's own shares, in [0, 1].
        tau: strength, at least 0.
        prior: class counts [C] of the federation (given by fedimb).
        local_counts: rows of each class that this client trains on [C] (given by fedimb in every run).

    Raises:
        ConfigError: a value out of range, or counts of another length, negative or not finite.
    """

    def __init__(
        self,
        n_classes: int,
        gamma: Share = 0.1,
        tau: NonNegative = 1.5,
        prior: np.ndarray | None = None,
        local_counts: np.ndarray | None = None,
    ) -> None:
        gamma, tau = in_range("dla", "gamma", gamma, 0, 1), in_range("dla", "tau", tau, 0)
        own = counts_at_client("dla", n_classes, local_counts)
        everywhere = own if prior is None else counts_at_client("dla", n_classes, prior)
        shares = [counts / max(counts.sum(), np.finfo(float).tiny) for counts in (everywhere, own)]
        blended = (1 - gamma) * shares[0] + gamma * shares[1]
        super().__init__(torch.from_numpy(np.log(blended**tau + _LEAST)).to(torch.float32))
        self.n_classes, self.gamma, self.tau, self._own = n_classes, gamma, tau, own

    def with_prior(self, prior: np.ndarray) -> "DistributionAwareAdjustment":
        """The same loss with other class shares (or counts) [C] of the federation."""
        return DistributionAwareAdjustment(self.n_classes, self.gamma, self.tau, prior, self._own)
