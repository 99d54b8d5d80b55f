"""FedLC: cross-entropy of logits reduced by margins that grow with the rarity of a class at this client.

Zhang et al., "Federated Learning with Label Distribution Skew via Logits Calibration", ICML 2022 (arXiv 2209.00189),
the calibrated cross-entropy of their method section:
l(y, z) = -log( exp(z_y - tau n_y^(-1/4)) / sum_c exp(z_c - tau n_c^(-1/4)) ), n_c this client's rows of class c.
The sum runs over all classes, as in the public re-implementations, and a class that the client does not hold has their
count of 1e-8: its margin is 100 tau, which removes it from the softmax. For a label of such a class (rows generated
after counting) the formula still applies: a loss of about 100 tau and a gradient of at most 1 per logit.

What to expect: a masked class is neither pushed down nor preserved, so local training forgets it. If most clients lack
most classes (Dirichlet alpha .1) FedLC is worse than plain cross-entropy; with milder skew (alpha .5) it is slightly
better.
"""

import numpy as np
import torch

from fedimb.registry import register
from fedimb.training.losses.base import AdjustedCrossEntropy, counts_at_client, in_range

ABSENT = 1e-8


@register("loss", "fedlc", adjusts_logits=True, needs_prior=False, uses_local_counts=True, stackable=True)
class FedLC(AdjustedCrossEntropy):
    """Cross-entropy of logits reduced by margins that grow with the rarity of a class at this client.

    Args:
        n_classes: C (given by fedimb).
        tau: size of the margins, at least 0; 0 is cross-entropy.
        local_counts: rows of each class that this client trains on [C] (given by fedimb in every run). Without them all
            margins are equal, which gives cross-entropy.

    Raises:
        ConfigError: tau negative or not finite.
        ConfigError: counts of another length, negative or not finite.
    """

    def __init__(self, n_classes: int, tau: float = 1.0, local_counts: np.ndarray | None = None) -> None:
        counts = counts_at_client("fedlc", n_classes, local_counts)
        margins = in_range("fedlc", "tau", tau, 0) * np.maximum(counts, ABSENT) ** -0.25
        super().__init__(-torch.from_numpy(margins).to(torch.float32))
