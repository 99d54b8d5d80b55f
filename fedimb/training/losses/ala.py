"""ala: cross-entropy of logits that are multiplied by a factor which grows with a class's rows at this client.

The part of FedLF that is known: Lu, Li and Jiang, "FedLF: Adaptive Logit Adjustment and Feature Optimization in
Federated Long-Tailed Learning", ACML 2024: f_c = alpha + (1 - alpha) n_c / max n, and l(z, y) = CE(f * z, y) of
logits z = W h without a bias. FedLF's term on class centres is not specified in any text or code that is public, so
this is not FedLF; its third term is the local objective `decorrelate`.

The factor is in training only: a bias would be learnt under it and used without it, so give the model a head that has
none (``model.head=bias_free``).
"""

import numpy as np
import torch

from fedimb.registry import register
from fedimb.registry.arguments import Share
from fedimb.training.losses.base import AdjustedCrossEntropy, counts_at_client, in_range


@register("loss", "ala", adjusts_logits=True, needs_prior=False, uses_local_counts=True, stackable=True)
class AdaptiveLogitAdjustment(AdjustedCrossEntropy):
    """Cross-entropy of logits multiplied by a factor that grows with a class's rows at this client.

    Args:
        n_classes: C (given by fedimb).
        alpha: factor of a class without rows, in [0, 1]; 1 is cross-entropy.
        local_counts: rows of each class that this client trains on [C] (given by fedimb in every run); without them
            all factors are 1.

    Raises:
        ConfigError: alpha out of range, or counts of another length, negative or not finite.
    """

    def __init__(self, n_classes: int, alpha: Share = 0.25, local_counts: np.ndarray | None = None) -> None:
        in_range("ala", "alpha", alpha, 0, 1)
        counts = counts_at_client("ala", n_classes, local_counts)
        share = counts / max(counts.max(), 1.0)
        super().__init__(factor=torch.from_numpy(alpha + (1 - alpha) * share).to(torch.float32))
