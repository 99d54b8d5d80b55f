"""LDAM with deferred re-weighting: larger margins for rarer classes, class weights only in the last rounds.

Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019:
l(y, z) = -log( exp(s (z_y - D_y)) / (exp(s (z_y - D_y)) + sum over c != y of exp(s z_c)) ), D_c = C n_c^(-1/4), C such
that the largest margin is ``max_margin``; re-weighting (DRW) as in their algorithm 1, here counted in global rounds.

The margins are meaningful only for logits of a fixed scale: z is the cosine of unit features and unit classifier rows,
as in a model with ``head: cosine``. That head multiplies its cosines by a scale, which is divided out first
(``head_scale``). A linear head outgrows the margins, and scale / head_scale multiplies its gradients.
"""

import math

import numpy as np
import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.training.losses.base import RowLoss, in_range, of_labels, row_cross_entropy
from fedimb.training.losses.class_weights import effective_number_weights, filled_counts, weighted_rows


def reweighted(round: int, rounds: int, drw_start: float) -> bool:
    """Whether a round (1-based, of ``rounds``) comes after the first ``drw_start * rounds`` rounds, rounded up.

    Because of the tolerance, 0.55 * 100 = 55.00000000000001 still includes round 56.
    """
    return round > math.ceil(drw_start * rounds - 1e-9)


@register(
    "loss", "ldam", adjusts_logits=True, needs_prior=True, stackable=True, unread_with={"beta": ("drw_start", (1,))}
)
class LDAM(RowLoss):
    """Larger margins for rarer classes, and class weights only in the last rounds.

    Args:
        prior: class counts [C] (given by fedimb). A class without rows has the margin and weight of the rarest class
            with rows.
        max_margin: margin of the rarest class, at least 0.
        scale: factor s on the cosines, more than 0.
        head_scale: the scale of the model's head, more than 0; 16 for ``head: cosine``; 1 uses the logits unchanged.
        drw_start: share of the rounds, 0 to 1, trained without class weights; 1: never weighted, 0: always weighted.
        beta: of the weights (1 - beta) / (1 - beta^n_c), 0 <= beta < 1; their mean is 1 over the classes that have
            rows.
        round, rounds: this round, 1-based, and their number (given by fedimb).

    Raises:
        ConfigError: an argument outside its range.
        ValueError: unusable counts.
    """

    margins: Tensor
    weights: Tensor

    def __init__(
        self,
        prior: np.ndarray,
        max_margin: float = 0.5,
        scale: float = 30.0,
        head_scale: float = 16.0,
        drw_start: float = 0.8,
        beta: float = 0.9999,
        round: int = 1,
        rounds: int = 1,
    ) -> None:
        super().__init__()
        counts = filled_counts(prior)
        margins = in_range("ldam", "max_margin", max_margin, 0) * (counts / counts.min()) ** -0.25
        for key, value in (("scale", scale), ("head_scale", head_scale)):
            if in_range("ldam", key, value, 0) == 0:
                raise ConfigError(
                    f"loss 'ldam': {key}=0: give a number above 0, as logits are multiplied or divided by it"
                )
        self.scale, self.head_scale = scale, head_scale
        in_range("ldam", "drw_start", drw_start, 0, 1)
        in_range("ldam", "beta", beta, 0, 1, high_allowed=False)
        weights = effective_number_weights(prior, beta if reweighted(round, rounds, drw_start) else 0.0)
        self.register_buffer("margins", torch.from_numpy(margins).to(torch.float32), persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and labels [...] int64 -> loss of each row [...] (see `weighted_rows`)."""
        cosines = logits / self.head_scale
        lowered = cosines.scatter_add(-1, labels[..., None], -of_labels(self.margins, labels)[..., None])
        return weighted_rows(row_cross_entropy(self.scale * lowered, labels), labels, self.weights)
