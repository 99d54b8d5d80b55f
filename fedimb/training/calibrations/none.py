"""No calibration: the model's own logits."""

from torch import Tensor

from fedimb.registry import register
from fedimb.training.calibrations.base import Calibration, Outputs


@register(
    "calibration",
    "none",
    adjusts_logits=False,
    needs_prior=False,
    changes_head=False,
    tasks=("multiclass", "multilabel"),
)
class NoCalibration(Calibration):
    """Returns the logits unchanged."""

    def adjust(self, outputs: Outputs) -> Tensor:
        """Outputs -> logits [n, C]."""
        return outputs.logits
