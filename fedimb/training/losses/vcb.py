"""VCB: each output's positives and negatives are weighted by their own effective numbers.

HACO, arXiv 2505.11152, "vertex-level class-balanced loss", whose outputs are the vertices of a hand: with n_v1 rows
that have label v and n_v0 that lack it, the binary cross-entropy of output v is weighted by
a_vy = (1 - beta) / (1 - beta^n_vy), Cui et al.'s weight per output. It is blended in over the training,
(1 - l) CB + l VCB, where CB has one weight for all positives and one for all negatives, of the sums of n_vy over the
outputs, and l rises evenly from 0 in the first global round to 1 in the last. beta 0 is `bce`.

The paper's weights are about 1 / n, too small a gradient for SGD: by default those of CB and of VCB are rescaled to
mean 1 over all rows and outputs.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount
from fedimb.training.losses.base import BOTH, RowLoss, in_range, targets_of
from fedimb.training.losses.class_weights import filled_counts

_REMEDY = (
    "needs the number of training rows for the negatives of each label, which class counts do not tell if rows have "
    "several labels: give it as loss.rows=N, summed over the clients (fedimb data shows it)"
)


@register(
    "loss",
    "vcb",
    adjusts_logits=False,
    needs_prior=True,
    stackable=True,
    tasks=BOTH,
    when={("rows", None): {"tasks": ("multiclass",), "task_remedy": _REMEDY}},
)
class VertexClassBalanced(RowLoss):
    """Binary cross-entropies with weights by the effective numbers of each output's positives and negatives.

    Args:
        prior: class counts [C] (given by fedimb). A class without rows counts as the rarest class with rows.
        beta: 0 <= beta < 1; 0 is `bce`.
        rows: training rows behind the counts; null: their sum, which holds if every row has one label.
        mean_one: rescale the weights to mean 1; false: the paper's, with Adam.
        round, rounds: this round, 1-based, and their number (given by fedimb).

    Raises:
        ConfigError: beta outside its range, or a number of rows that does not fit the counts.
        ValueError: unusable counts.
    """

    positive: Tensor
    negative: Tensor

    def __init__(
        self,
        prior: np.ndarray,
        beta: float = 0.9999,
        rows: PositiveCount | None = None,
        mean_one: bool = True,
        round: int = 1,
        rounds: int = 1,
    ) -> None:
        super().__init__()
        in_range("vcb", "beta", beta, 0, 1, high_allowed=False)
        given, positives = np.asarray(prior, dtype=np.float64), filled_counts(prior)
        total = float(given.sum() if rows is None else rows)
        if not given.max() <= total <= given.sum():
            raise ConfigError(
                f"loss 'vcb': rows={rows}, but the most frequent class has {given.max():g} rows and all classes "
                f"together {given.sum():g}: give the number of rows that were counted, or null"
            )
        counts = np.stack([positives, np.maximum(total - given, 1.0)])  # [2, C]
        per_output = effective_weights(counts, beta)
        over_all = np.broadcast_to(effective_weights(counts.sum(axis=1, keepdims=True), beta), counts.shape)
        if mean_one:
            per_output, over_all = (w * counts.sum() / (w * counts).sum() for w in (per_output, over_all))
        share = (round - 1) / (rounds - 1) if rounds > 1 else 1.0
        blended = torch.from_numpy((1 - share) * over_all + share * per_output).to(torch.float32)
        self.register_buffer("positive", blended[0].clone(), persistent=False)
        self.register_buffer("negative", blended[1].clone(), persistent=False)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and targets [..., C] or labels [...] int64 -> loss of each row [...]."""
        targets = targets_of(logits, labels)
        each = self.positive * targets * softplus(-logits) + self.negative * (1 - targets) * softplus(logits)
        return each.sum(-1)


def effective_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """(1 - beta) / (1 - beta^n) of counts n >= 1, float64 of the same shape; 1 for beta 0."""
    if beta == 0:
        return np.ones_like(counts)
    weights: np.ndarray = (1 - beta) / -np.expm1(counts * np.log(beta))
    return weights
