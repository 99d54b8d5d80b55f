"""Partial cross-entropy: of a row whose label is a set of classes, the probability of the whole set is raised.

Jin and Ghahramani, "Learning with Multiple Labels", NIPS 2002: with p the softmax and S the classes that a row may be,
its loss is -log sum over c in S of p_c, the likelihood of what is known. As marginal loss in Shi et al., "Marginal loss
and exclusion loss for partially supervised multi-organ segmentation", Medical Image Analysis 2021. A row of a known
class has S = {y}: cross-entropy. A row of which nothing is known has S = all classes: loss 0 and gradient 0.
"""

import numpy as np
import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.training.losses.base import RowLoss


@register("loss", "partial_ce", adjusts_logits=False, needs_prior=False, stackable=True, unknown_labels=("coarse",))
class PartialCrossEntropy(RowLoss):
    """Cross-entropy of classes and of coarse labels, sets of classes of which one is right.

    Args:
        n_classes: C (given by fedimb).
        label_sets: [J, C] bool, the classes of coarse label C + j (given by fedimb); None: every label is a class.

    Example:
        >>> import numpy as np, torch
        >>> loss = PartialCrossEntropy(n_classes=3, label_sets=np.array([[False, True, True]]))
        >>> sure, one_of_two = torch.tensor([1]), torch.tensor([3])
        >>> [round(loss(torch.zeros(1, 3), label).item(), 3) for label in (sure, one_of_two)]
        [1.099, 0.405]
    """

    sets: Tensor

    def __init__(self, n_classes: int, label_sets: np.ndarray | None = None) -> None:
        super().__init__()
        coarse = np.zeros((0, n_classes), bool) if label_sets is None else np.asarray(label_sets, bool)
        sets = np.concatenate([np.eye(n_classes, dtype=bool), coarse])
        self.register_buffer("sets", torch.from_numpy(sets), persistent=False)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and labels [...] int64 in 0..C+J-1 -> loss of each row [...]."""
        possible = logits.masked_fill(~self.sets[labels], -torch.inf)
        return logits.logsumexp(-1) - possible.logsumexp(-1)
