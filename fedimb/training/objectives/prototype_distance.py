"""FedProto's regularizer: rows' features are held near the mean features that all clients have of their class.

Tan et al., "FedProto: Federated Prototype Learning across Heterogeneous Clients", AAAI 2022, eq. 7, as in the authors'
code: the mean squared difference of a row's features to its class's prototype.
"""

import torch
from torch import Tensor, nn

from fedimb.training.objectives.base import LocalObjective


class PrototypeDistance(LocalObjective):
    """Adds weight times the mean over rows and features of (h - c_y)^2; a class without a prototype adds 0.

    Args:
        weight: lambda, >= 0.
        prototypes: [C, d].
        known: [C] bool, classes that have one.
    """

    def __init__(self, weight: float, prototypes: Tensor, known: Tensor) -> None:
        self._weight, self._prototypes, self._known = weight, prototypes, known

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """The regularizer of a batch; features [n, d], labels [n]."""
        device = features.device
        wanted, known = self._prototypes.to(device)[labels], self._known.to(device)[labels]
        distances = (features - torch.where(known[:, None], wanted, features.detach())) ** 2
        return self._weight * torch.where(known[:, None], distances, 0.0).mean()
