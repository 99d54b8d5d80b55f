"""BalanceFL's cross-entropy: over the classes of the batch only, so that the others are not pushed down.

Shuai et al., "BalanceFL: Addressing Class Imbalance in Long-Tail Federated Learning", IPSN 2022. The whole method is
this loss, ``sampler=class_balanced`` and ``aggregator=balancefl``, whose local objectives `inherit` and `feature_noise`
add the other classes and the augmentation. Absent is a class that the batch lacks, not one that the client lacks.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedimb.registry import register


@register("loss", "batch_restricted_ce", adjusts_logits=True, needs_prior=False, stackable=False)
class BatchRestrictedCrossEntropy(nn.Module):
    """Cross-entropy over the classes that the batch holds."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] float32 and labels [n] int64 -> scalar mean over rows."""
        missing = ~classes_of(labels, logits.shape[1])
        return cross_entropy(logits.masked_fill(missing, float("-inf")), labels)


def classes_of(labels: Tensor, n_classes: int) -> Tensor:
    """Labels [n] int64 -> [C] bool: the classes among them."""
    held = torch.zeros(n_classes, dtype=torch.bool, device=labels.device)
    held[labels] = True
    return held
