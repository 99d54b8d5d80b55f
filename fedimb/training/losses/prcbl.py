"""PRCBL: balanced softmax whose rows are weighted inversely to the effective number of rows of their class.

EndoCIL, arXiv 2510.17200: l(z, y) = w_y CE(z + log pi, y). Its abstract names a class-balanced loss regularised by the
prior; the product is our reading of it, and the weights are those of Cui et al. 2019 (`class_balanced`). The method
counts replayed rows of earlier phases too, as the run's prior does with strategy class_incremental. beta 0 makes every
weight 1, and the loss balanced softmax. Predictions use z.
"""

import numpy as np
from torch import Tensor

from fedimb.registry import register
from fedimb.training.losses.base import AdjustedCrossEntropy, in_range, of_labels
from fedimb.training.losses.class_weights import effective_number_weights, weighted_rows
from fedimb.training.prior import log_prior


@register("loss", "prcbl", adjusts_logits=True, needs_prior=True, stackable=True)
class PriorRegularizedClassBalanced(AdjustedCrossEntropy):
    """Cross-entropy of the logits shifted by the log class prior, with class-balanced weights of the rows.

    Args:
        prior: class counts [C] of shift and weights (given by fedimb); the client's own with
            ``prior.provenance=local``. A class without rows counts as the rarest class with rows.
        beta: of the weights (1 - beta) / (1 - beta^n_c), 0 <= beta < 1; their mean is 1 over the classes with rows.

    Raises:
        ConfigError: beta outside its range.
        ValueError: unusable counts.
    """

    weights: Tensor

    def __init__(self, prior: np.ndarray, beta: float = 0.9999) -> None:
        in_range("prcbl", "beta", beta, 0, 1, high_allowed=False)
        super().__init__(log_prior(prior))
        self.register_buffer("weights", effective_number_weights(prior, beta), persistent=False)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [..., C] float32 and labels [...] int64 -> loss of each row [...]."""
        return weighted_rows(super().rows(logits, labels), labels, self.weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] float32 and labels [n] int64 -> scalar mean over rows."""
        return self.rows(logits, labels).mean()

    def loss_and_grad(self, logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """See `RowLoss.loss_and_grad`; the weights of rows and of their classes are multiplied."""
        return super().loss_and_grad(logits, labels, weights * of_labels(self.weights, labels))
