"""GLA-FR of the global head: classifier rows of one length, with the bias kept.

Xiao et al., "FedLoGe: Joint Local and Generic Federated Learning under Long-tailed Data", ICLR 2024, global alignment:
w_c <- s w_c / ||w_c||, s = 1.7 in their code, b unchanged. `tau` with tau 1 drops the bias and has s = 1: while a
bias is not 0, the two, and two values of s, predict different classes.
"""

from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import Positive, in_range
from fedimb.training.calibrations.base import Calibration, Outputs


@register("calibration", "gla_fr", adjusts_logits=False, needs_prior=False, changes_head=True)
class GlobalAlignment(Calibration):
    """Gives classifier rows one length and keeps the bias.

    Args:
        scale: the length of every row, > 0.

    Raises:
        ConfigError: any other scale.
    """

    def __init__(self, scale: Positive = 1.7) -> None:
        self.scale = in_range("calibration 'gla_fr'", "scale", scale, 0, low_allowed=False)

    def adjust(self, outputs: Outputs) -> Tensor:
        """Outputs -> logits [n, C] = scale * features @ (w / ||w||)^T + b; a row of zeros stays one."""
        rows = outputs.weight / outputs.weight.norm(dim=1, keepdim=True).clamp_min(1e-12)
        logits = outputs.features @ (self.scale * rows).T
        return logits if outputs.bias is None else logits + outputs.bias
