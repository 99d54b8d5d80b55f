"""Vector scaling: logits are multiplied and shifted per class before the cross-entropy.

Kini et al., "Label-Imbalanced and Group-Sensitive Classification under Overparameterization", NeurIPS 2021, the
multiclass VS loss with weights omega = 1:
l(y, z) = -log( exp(g_y z_y + i_y) / sum_c exp(g_c z_c + i_c) ), with their g_c = (n_c / n_max)^gamma (smaller for rare
classes, whose logits must then grow: it acts late in training) and i_c = tau log pi_c (it acts early). gamma 0 is
logit adjustment, gamma 0 with tau 1 balanced softmax, tau 0 the class-dependent temperatures of Ye et al. 2020.
Predictions use the unchanged logits.
"""

import numpy as np
import torch

from fedimb.registry import register
from fedimb.training.losses.base import AdjustedCrossEntropy, in_range
from fedimb.training.losses.class_weights import filled_counts
from fedimb.training.prior import log_prior


@register("loss", "vs", adjusts_logits=True, needs_prior=True, stackable=True)
class VectorScaling(AdjustedCrossEntropy):
    """Logits are multiplied and shifted per class before the cross-entropy.

    Args:
        prior: class counts [C] (given by fedimb). A class without rows is treated like the rarest class with rows.
        gamma: exponent of the factors, at least 0; useful values are small (.05 to .3).
        tau: strength of the shift, at least 0.

    Raises:
        ConfigError: gamma or tau negative or not finite.
        ValueError: unusable counts.
    """

    def __init__(self, prior: np.ndarray, gamma: float = 0.15, tau: float = 1.0) -> None:
        counts = filled_counts(prior)
        factor = (counts / counts.max()) ** in_range("vs", "gamma", gamma, 0)
        shift = in_range("vs", "tau", tau, 0) * log_prior(prior)
        super().__init__(shift, torch.from_numpy(factor).to(torch.float32))
