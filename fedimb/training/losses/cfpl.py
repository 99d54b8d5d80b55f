"""Constrained false positives: what a client does not annotate is a weak negative, and none where the model finds it.

After the idea of the Constrained False Positive Loss (TU Ilmenau; its text was not available, so this is a
reconstruction): with p_c = sigmoid(z_c), an annotated class has its binary cross-entropy, and an unknown cell has the
negative term -log(1 - p_c) only while p_c <= threshold. Classes that are probably there are so not pushed down, while
the head still sees negatives of classes that few clients annotate. The threshold is 1 at first, when predictions mean
little, and falls evenly to its value.

Unlike `bce`, which leaves unknown cells out, this does take unlikely ones for negatives: compare the classes'
specificity before trusting it.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from fedimb.registry import register
from fedimb.registry.arguments import Share
from fedimb.training.losses.base import BOTH, RowLoss, in_range, known_targets


@register(
    "loss", "cfpl", adjusts_logits=False, needs_prior=False, stackable=True, tasks=BOTH, unknown_labels=("cells",)
)
class ConstrainedFalsePositives(RowLoss):
    """Binary cross-entropy of known cells, and of unknown ones as negatives while they are improbable.

    Args:
        threshold: an unknown cell of a higher probability is left out; 0: all are (`bce`), 1: all are negatives.
        warmup: share of the rounds in which the threshold is 1; it falls to its value in as many rounds again.
        round, rounds: the round and their number (given by fedimb).

    Raises:
        ConfigError: an argument outside its range.
    """

    def __init__(self, threshold: Share = 0.5, warmup: Share = 0.2, round: int = 1, rounds: int = 1) -> None:
        super().__init__()
        in_range("cfpl", "threshold", threshold, 0, 1)
        in_range("cfpl", "warmup", warmup, 0, 1)
        over = warmup * rounds  # rounds of the warm-up
        fallen = min(1.0, max(0.0, (round - over) / over)) if over else 1.0
        self.limit = 1 + (threshold - 1) * fallen

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32, targets [..., C] of 0, 1, NaN or labels [...] int64 -> loss of each row [...]."""
        targets, unknown = known_targets(logits, labels)
        each = binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if unknown is None:
            return each.sum(-1)
        weak = softplus(logits).masked_fill(logits.detach().sigmoid() > self.limit, 0.0)
        if self.limit == 0:
            weak = torch.zeros_like(weak)
        return torch.where(unknown, weak, each).sum(-1)
