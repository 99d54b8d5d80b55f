"""Post-hoc logit adjustment: the baseline without training cost that every method must beat.

Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021, eq. 9: argmax_y f_y(x) - tau log pi_y.

tau = 1 is right for a calibrated model. If softmax(f / T) is calibrated, tau = T is right; ``tau: temperature`` finds
it on rows held out of training (`fedimb.evaluation.temperature`, docs/temperature.md).
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.training.calibrations.base import Calibration, Outputs
from fedimb.training.prior import log_prior

NEVER = -1e30
"""Logit of a class that is never predicted: finite, so that probabilities and their scores stay so."""


@register(
    "calibration",
    "la_post",
    adjusts_logits=True,
    needs_prior=True,
    changes_head=False,
    when={
        ("tau", "temperature"): {"tau_rule": "temperature", "folds": 5},
        ("tau", "temperature_one_fold"): {"tau_rule": "temperature_one_fold", "folds": 1},
        ("tau", "oracle_pool"): {"tau_rule": "oracle_pool", "folds": 5},
    },
)
class PostHocLogitAdjustment(Calibration):
    """Post-hoc logit adjustment: subtracts tau times the log class prior from the logits.

    Args:
        tau: strength, at least 0; 1 is consistent for the balanced error. temperature: that of the model on held-out
            rows, from five folds; temperature_one_fold: from one, of at least 500 rows; oracle_pool: in active learning
            that on unlabelled rows, whose labels only a simulation knows.
        min_count: classes with fewer rows (of all clients, as the prior counts them) are never predicted, as in the
            heads of ``strategy=oneround``; 0: all can be.

    Example:
        >>> import numpy as np, torch
        >>> logits = torch.tensor([[2.0, 1.0]])
        >>> made = Outputs(features=logits, logits=logits, weight=torch.eye(2), bias=None, counts=np.array([95, 5]))
        >>> logits.argmax(1).tolist(), PostHocLogitAdjustment().adjust(made).argmax(1).tolist()
        ([0], [1])
    """

    def __init__(
        self,
        tau: float | Literal["temperature", "temperature_one_fold", "oracle_pool"] = 1.0,
        min_count: int = 0,
    ) -> None:
        if min_count < 0:
            raise ConfigError(f"calibration.la_post.min_count={min_count}: give a number of rows of at least 0")
        if not isinstance(tau, str) and tau < 0:
            raise ConfigError(f"calibration.la_post.tau={tau}: give at least 0; below, it favours frequent classes")
        self.tau, self.min_count = tau, min_count

    def adjust(self, outputs: Outputs) -> Tensor:
        """Outputs -> logits [n, C].

        Raises:
            ValueError: the run collected no class counts, or has not found tau yet.
            ConfigError: every class has fewer rows than ``min_count``.
        """
        if outputs.counts is None:
            raise ValueError("la_post needs class counts: set prior.provenance to clear_sum")
        if isinstance(self.tau, str):
            raise ValueError(f"la_post: tau={self.tau} has not been found yet; build it with the number that was")
        device = outputs.logits.device
        logits = outputs.logits - self.tau * log_prior(outputs.counts).to(device)
        few = torch.from_numpy(np.asarray(outputs.counts) < self.min_count).to(device)
        if few.all():
            raise ConfigError(f"calibration.la_post.min_count={self.min_count}: no class has as many rows")
        return logits.masked_fill(few, NEVER) if few.any() else logits
