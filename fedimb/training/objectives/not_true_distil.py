"""FedNTD: distillation from the received model over the classes that a row does not belong to.

Lee et al., "Preservation of the Global Knowledge by Not-True Distillation in Federated Learning", NeurIPS 2022, eq. 4.
The teacher is a copy of the weights that the client received, so nothing else is sent.
"""

import torch
from torch import Tensor, nn

from fedimb.registry import register
from fedimb.training.objectives.distil import Distil, divergence


@register("objective", "not_true_distil", stackable=False, distils=True)
class NotTrueDistillation(Distil):
    """Adds weight T^2 KL(softmax(t / T) || softmax(z / T)), both over all classes but the row's own: the batch mean
    over logits z of the model trained and t of the model received (in evaluation mode).

    Args:
        weight: beta, >= 0 and finite.
        temperature: tau, > 0 and finite.

    Raises:
        ConfigError: any other weight or temperature.
    """

    def __init__(self, weight: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__(weight, temperature)

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """The weighted divergence, or None if there is nothing to distil."""
        if self._teacher is None:
            return None
        others = torch.ones_like(logits, dtype=torch.bool).scatter(1, labels[:, None], False)
        ours, theirs = (z[others].view(len(logits), -1) for z in (logits, self._target))
        return self.weight * divergence(ours, theirs, self.temperature)
