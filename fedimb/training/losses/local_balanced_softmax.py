"""Balanced softmax over a client's own class counts: FedROD's loss of the generic head, useful with any model.

Chen and Chao, "On Bridging Generic and Personalized Federated Learning for Image Classification", ICLR 2022:
l(z, y) = CE(z + log pi_k, y), pi_k the class shares of this client.

An absent class has the share 1e-12 before normalising (``absent: floor``), which removes it from the softmax: it gets
no gradient, so it is neither learnt nor preserved. Some implementations count it as one row (``absent: one``): it is
then pushed down as if the client had a row of it. A label of an absent class has a loss of about 28 with the floor.
"""

from typing import Literal

import numpy as np
import torch

from fedimb.registry import register
from fedimb.training.losses.base import AdjustedCrossEntropy, counts_at_client

FLOOR = 1e-12


@register(
    "loss", "local_balanced_softmax", adjusts_logits=True, needs_prior=False, uses_local_counts=True, stackable=True
)
class LocalBalancedSoftmax(AdjustedCrossEntropy):
    """Cross-entropy of logits shifted by the logarithm of this client's own class shares.

    Args:
        n_classes: C (given by fedimb).
        absent: share of a class without rows: ``floor`` is 1e-12, ``one`` counts it as one row.
        local_counts: rows of each class that this client trains on [C] (given by fedimb in every run); without them
            all shares are equal, which gives cross-entropy.

    Raises:
        ConfigError: counts of another length, negative or not finite.
    """

    def __init__(
        self, n_classes: int, absent: Literal["floor", "one"] = "floor", local_counts: np.ndarray | None = None
    ) -> None:
        counts = counts_at_client("local_balanced_softmax", n_classes, local_counts)
        super().__init__(torch.from_numpy(log_shares(counts, absent)).to(torch.float32))


def log_shares(counts: np.ndarray, absent: Literal["floor", "one"]) -> np.ndarray:
    """Logarithms of the class shares of counts [C], float64; what an absent class has: see `LocalBalancedSoftmax`."""
    if absent == "one":
        shares = np.maximum(counts, 1.0)
    else:
        shares = np.where(counts > 0, counts / max(counts.sum(), 1.0), FLOOR)
    logs: np.ndarray = np.log(shares / shares.sum())
    return logs
