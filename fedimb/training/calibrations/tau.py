"""tau-normalisation: classifier rows rescaled by their norm, since head classes grow longer rows.

Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, eq. 4:
w_i / ||w_i||^tau, and no bias, as there.
"""

from torch import Tensor

from fedimb.registry import register
from fedimb.training.calibrations.base import Calibration, Outputs


@register("calibration", "tau", adjusts_logits=False, needs_prior=False, changes_head=True)
class TauNormalisation(Calibration):
    """Args:
    tau: 0 leaves the weights as they are (less the bias), 1 gives unit rows.

    Example:
        >>> import torch
        >>> features, weight = torch.tensor([[1.0, 1.5]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> made = Outputs(features, features @ weight.T, weight, bias=None, counts=None)
        >>> made.logits.tolist(), TauNormalisation().adjust(made).tolist()
        ([[2.0, 1.5]], [[1.0, 1.5]])
    """

    def __init__(self, tau: float = 1.0) -> None:
        self.tau = tau

    def adjust(self, outputs: Outputs) -> Tensor:
        """Outputs -> logits [n, C] = features @ (w / ||w||^tau)^T."""
        norms = outputs.weight.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return outputs.features @ (outputs.weight / norms**self.tau).T
