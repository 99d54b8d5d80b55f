"""FedLC: cross-entropy of logits lowered by margins that grow with the rarity of a class at this client.

Zhang et al., "Federated Learning with Label Distribution Skew via Logits Calibration", ICML 2022 (arXiv 2209.00189),
the calibrated cross-entropy of their method section:
l(y, z) = -log( exp(z_y - tau n_y^(-1/4)) / sum_c exp(z_c - tau n_c^(-1/4)) ), n_c this client's rows of class c.
The sum runs over all classes, as in the public re-implementations, and a class the client does not hold has the count
1e-8 they use: its margin is 100 tau, which takes it out of the softmax. A label of such a class (rows generated after
the counts were taken) keeps the formula: a loss of about 100 tau and a gradient of at most 1 per logit.

What to expect: a masked class is neither pushed down nor kept, so local training forgets it. Where most clients
lack most classes (Dirichlet alpha .1) FedLC does worse than plain cross-entropy; under milder skew (alpha .5) a
little better.
"""

import numpy as np
import torch

from fedimb.registry import register
from fedimb.training.losses.base import AdjustedCrossEntropy, in_range

ABSENT = 1e-8


@register("loss", "fedlc", adjusts_logits=True, needs_prior=False, uses_local_counts=True, stackable=True)
class FedLC(AdjustedCrossEntropy):
    """Args:
    n_classes: C (given by fedimb).
    tau: size of the margins, at least 0; 0 is cross-entropy.
    local_counts: rows of each class this client trains on [C] (given by fedimb in every run). Without them all
        margins are equal, which is cross-entropy.

    Raises:
        ConfigError: tau negative or not finite.
        ValueError: counts of another length, negative or not finite.
    """

    def __init__(self, n_classes: int, tau: float = 1.0, local_counts: np.ndarray | None = None) -> None:
        counts = np.ones(n_classes) if local_counts is None else np.asarray(local_counts, dtype=np.float64)
        if counts.shape != (n_classes,) or not np.isfinite(counts).all() or (counts < 0).any():
            raise ValueError(
                f"fedlc needs one finite count >= 0 for each of {n_classes} classes; got {counts.tolist()}"
            )
        margins = in_range("fedlc", "tau", tau, 0) * np.maximum(counts, ABSENT) ** -0.25
        super().__init__(-torch.from_numpy(margins).to(torch.float32))
