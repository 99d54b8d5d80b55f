"""Logit adjustment in the loss: cross-entropy of z + tau log pi.

Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021, eq. 10:
l(y, z) = -log( exp(z_y + tau log pi_y) / sum_c exp(z_c + tau log pi_c) ). tau 1 is balanced softmax and consistent
for the balanced error; tau 0 is cross-entropy. Predictions use the unshifted logits.
"""

import numpy as np

from fedimb.registry import register
from fedimb.training.losses.base import AdjustedCrossEntropy, in_range
from fedimb.training.prior import log_prior


@register("loss", "logit_adjusted", adjusts_logits=True, needs_prior=True, stackable=True)
class LogitAdjusted(AdjustedCrossEntropy):
    """Cross-entropy of z + tau log pi, the logits adjusted by the class prior.

    Args:
        prior: class counts [C] for the shift (given by fedimb).
        tau: strength, at least 0.

    Raises:
        ConfigError: tau negative or not finite.
        ValueError: unusable counts.
    """

    def __init__(self, prior: np.ndarray, tau: float = 1.0) -> None:
        super().__init__(in_range("logit_adjusted", "tau", tau, 0) * log_prior(prior))
