"""Asymmetric loss (ASL): one-vs-rest sigmoids in which easy negatives are down-weighted more than positives.

Ridnik et al., "Asymmetric Loss for Multi-Label Classification", ICCV 2021, sections 2.2 to 2.4: for rows with several
labels, or with one-hot targets; not the softmax variant that their code adds for single labels. With
p_c = sigmoid(z_c), p'_c = max(p_c - margin, 0) and Y the row's labels, its loss is
-sum over y in Y of (1 - p_y)^gamma_pos log(p_y) - sum over c not in Y of (p'_c)^gamma_neg log(1 - p'_c).
Negatives below the margin are dropped. margin 0 and equal gammas give the binary focal losses of the C one-vs-rest
problems, summed (Lin et al. 2017, eq. 4); with gammas 0 as well, their binary cross-entropies. With one label per row
the prediction is the largest logit; neither softmax nor sigmoid of the resulting logits is a calibrated probability.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from fedimb.registry import register
from fedimb.training.losses.base import BOTH, RowLoss, in_range, known_targets, over_known


@register(
    "loss",
    "asymmetric_focal",
    adjusts_logits=False,
    needs_prior=False,
    stackable=True,
    tasks=BOTH,
    unknown_labels=("cells",),
)
class AsymmetricFocal(RowLoss):
    """Asymmetric loss: one-vs-rest sigmoids in which easy negatives are down-weighted more than positives.

    Args:
        gamma_pos: focusing exponent of the label's term, at least 0.
        gamma_neg: focusing exponent of the other classes' terms, at least 0; the paper's 0 and 4 are the defaults.
        margin: probability below which a negative is dropped, 0 <= margin < 1; the paper's is .05.

    Raises:
        ConfigError: an argument outside its range.
    """

    def __init__(self, gamma_pos: float = 0.0, gamma_neg: float = 4.0, margin: float = 0.05) -> None:
        super().__init__()
        self.gamma_pos = in_range("asymmetric_focal", "gamma_pos", gamma_pos, 0)
        self.gamma_neg = in_range("asymmetric_focal", "gamma_neg", gamma_neg, 0)
        self.margin = in_range("asymmetric_focal", "margin", margin, 0, 1, high_allowed=False)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32, targets [..., C] or labels [...] int64 -> loss of each row [...], over classes."""
        log_p, log_rest = logsigmoid(logits), logsigmoid(-logits)
        if labels.dim() == logits.dim():
            each = -log_p * (self.gamma_pos * log_rest).exp()
            targets, unknown = known_targets(logits, labels)
            return over_known(torch.where(targets > 0, each, self._negatives(logits, log_p, log_rest)), unknown)
        label = labels[..., None]
        positive = -log_p.gather(-1, label) * (self.gamma_pos * log_rest.gather(-1, label)).exp()
        negative = self._negatives(logits, log_p, log_rest).scatter(-1, label, 0.0)
        return positive[..., 0] + negative.sum(-1)

    def _negatives(self, logits: Tensor, log_p: Tensor, log_rest: Tensor) -> Tensor:
        """-(p')^gamma_neg log(1 - p') of every logit, computed with logarithms so that no gradient is 0 x infinity."""
        if self.margin == 0:
            return -log_rest * (self.gamma_neg * log_p).exp()
        above = logits.sigmoid() - self.margin
        dropped = above <= 0
        log_above = above.masked_fill(dropped, 1.0).log()
        # 1 - p' = (1 - p) + margin
        log_below = log_rest.logaddexp(torch.full_like(log_rest, math.log(self.margin)))
        return (-log_below * (self.gamma_neg * log_above).exp()).masked_fill(dropped, 0.0)
