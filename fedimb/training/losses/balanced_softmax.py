"""Balanced softmax: cross-entropy of the logits shifted by the log class prior.

Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020, eq. 4:
l(y, z) = -log( n_y exp(z_y) / sum_j n_j exp(z_j) ). Equal to logit adjustment in the loss with tau = 1
(Menon et al. 2021). Predictions use the unshifted logits.
"""

import numpy as np

from fedimb.registry import register
from fedimb.training.losses.base import AdjustedCrossEntropy
from fedimb.training.prior import log_prior


@register("loss", "balanced_softmax", adjusts_logits=True, needs_prior=True, stackable=True)
class BalancedSoftmax(AdjustedCrossEntropy):
    """Cross-entropy of the logits shifted by the log class prior.

    Args:
        prior: class counts [C] for the shift (given by fedimb; view, weighting and provenance as configured).

    Example:
        >>> import numpy as np, torch
        >>> loss = BalancedSoftmax(prior=np.array([90, 9, 1]))
        >>> unsure = torch.zeros(1, 3)
        >>> [round(loss(unsure, torch.tensor([label])).item(), 2) for label in range(3)]
        [0.11, 2.41, 4.61]
    """

    def __init__(self, prior: np.ndarray) -> None:
        super().__init__(log_prior(prior))
