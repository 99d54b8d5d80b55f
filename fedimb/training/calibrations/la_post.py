"""Post-hoc logit adjustment: the baseline without training cost that every method must beat.

Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021, eq. 9: argmax_y f_y(x) - tau log pi_y.
"""

from torch import Tensor

from fedimb.registry import register
from fedimb.training.calibrations.base import Calibration, Outputs
from fedimb.training.prior import log_prior


@register("calibration", "la_post", adjusts_logits=True, needs_prior=True, changes_head=False)
class PostHocLogitAdjustment(Calibration):
    """Post-hoc logit adjustment: subtracts tau times the log class prior from the logits.

    Args:
        tau: strength; 1 is consistent for the balanced error.

    Example:
        >>> import numpy as np, torch
        >>> logits = torch.tensor([[2.0, 1.0]])
        >>> made = Outputs(features=logits, logits=logits, weight=torch.eye(2), bias=None, counts=np.array([95, 5]))
        >>> logits.argmax(1).tolist(), PostHocLogitAdjustment().adjust(made).argmax(1).tolist()
        ([0], [1])
    """

    def __init__(self, tau: float = 1.0) -> None:
        self.tau = tau

    def adjust(self, outputs: Outputs) -> Tensor:
        """Outputs -> logits [n, C]. Raises ValueError if the run collected no class counts."""
        if outputs.counts is None:
            raise ValueError("la_post needs class counts: set prior.provenance to clear_sum")
        return outputs.logits - self.tau * log_prior(outputs.counts)
