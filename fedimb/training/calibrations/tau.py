"""tau-normalisation: classifier rows are rescaled by their norm, because frequent classes get longer rows.

Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, eq. 4:
w_i / ||w_i||^tau, without bias as in the paper.
"""

from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.training.calibrations.base import Calibration, Outputs


@register("calibration", "tau", adjusts_logits=False, needs_prior=False, changes_head=True)
class TauNormalisation(Calibration):
    """Rescales classifier rows by their norm and removes the bias.

    Args:
        tau: 0 keeps the weights (without the bias), 1 gives unit rows.

    Example:
        >>> import torch
        >>> features, weight = torch.tensor([[1.0, 1.5]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> made = Outputs(features, features @ weight.T, weight, bias=None, counts=None)
        >>> made.logits.tolist(), TauNormalisation().adjust(made).tolist()
        ([[2.0, 1.5]], [[1.0, 1.5]])
    """

    def __init__(self, tau: float = 1.0) -> None:
        if tau < 0:
            raise ConfigError(f"calibration.tau.tau={tau}: give at least 0; below, it favours classes with long rows")
        self.tau = tau

    def adjust(self, outputs: Outputs) -> Tensor:
        """Outputs -> logits [n, C] = features @ (w / ||w||^tau)^T."""
        norms = outputs.weight.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return outputs.features @ (outputs.weight / norms**self.tau).T
