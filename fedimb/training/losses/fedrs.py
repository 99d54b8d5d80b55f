"""FedRS: cross-entropy in which the logits of classes that a client lacks count for less.

Li and Zhan, "FedRS: Federated Learning with Restricted Softmax for Label Distribution Non-IID Data", KDD 2021:
l(z, y) = CE(f * z, y) with f_c = 1 if the client holds class c, and alpha otherwise.

A factor below 1 shrinks a logit towards 0: it weakens the push on an absent class whose logit is positive, and
strengthens it where the logit is negative.
"""

import numpy as np
import torch

from fedimb.registry import register
from fedimb.registry.arguments import Count, Share
from fedimb.training.losses.base import AdjustedCrossEntropy, counts_at_client, in_range


@register("loss", "fedrs", adjusts_logits=True, needs_prior=False, uses_local_counts=True, stackable=True)
class FedRS(AdjustedCrossEntropy):
    """Cross-entropy of logits, those of classes that this client lacks multiplied by alpha.

    Args:
        n_classes: C (given by fedimb).
        alpha: factor of an absent class, in [0, 1]; 1 is cross-entropy.
        missing_up_to: a class of at most so many rows counts as absent; 0 as in the paper, 2 in some implementations.
        local_counts: rows of each class that this client trains on [C] (given by fedimb in every run); without them
            no class counts as absent.

    Raises:
        ConfigError: a value out of range, or counts of another length, negative or not finite.
    """

    def __init__(
        self,
        n_classes: int,
        alpha: Share = 0.5,
        missing_up_to: Count = 0,
        local_counts: np.ndarray | None = None,
    ) -> None:
        in_range("fedrs", "alpha", alpha, 0, 1)
        in_range("fedrs", "missing_up_to", missing_up_to, 0)
        held = counts_at_client("fedrs", n_classes, local_counts) > missing_up_to
        if local_counts is None:
            held[:] = True
        super().__init__(factor=torch.from_numpy(np.where(held, 1.0, alpha)).to(torch.float32))
