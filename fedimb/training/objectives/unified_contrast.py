"""RUCR's local term: features are pulled to the direction of their class's unified prototype, rare classes first.

"RUCR", Information Processing & Management 2024: CE(sim / t + e_y log pi_y, y), sim the cosines of a row's features and
the prototypes, 0 for a class that the client lacks or that has no prototype (it stays in the softmax), pi the class
shares of the federation, added in the label's column alone.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from fedimb.training.objectives.base import LocalObjective


class UnifiedContrast(LocalObjective):
    """Adds beta times the contrast with the prototypes; built by RUCR's client side.

    Args:
        prototypes: [C, d]; a row of zeros: none.
        counts: rows of each class in the federation, as the prior has them [C]; a class with 0 has the share 1e-12.
        beta: weight, >= 0.
        temperature: t, > 0.
    """

    def __init__(self, prototypes: Tensor, counts: Tensor, beta: float, temperature: float) -> None:
        self.beta, self.temperature = beta, temperature
        shares = counts / counts.sum().clamp_min(1e-12)
        self._directions, self._log_shares = normalize(prototypes, dim=1), shares.clamp_min(1e-12).log()
        self._held = torch.zeros(len(prototypes), dtype=torch.bool)

    def on_rows(self, labels: Tensor) -> None:
        """Store the classes that the client holds, and move everything to the rows' device."""
        device = labels.device
        self._directions, self._log_shares = self._directions.to(device), self._log_shares.to(device)
        self._held = torch.zeros(len(self._directions), dtype=torch.bool, device=device)
        self._held[labels] = True

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """beta times the mean over the rows; features [n, d], labels [n]."""
        cosines = (normalize(features, dim=1) @ self._directions.to(features.dtype).T) * self._held
        label = one_hot(labels, len(self._held)) * self._log_shares.to(features.dtype)
        return self.beta * cross_entropy(cosines / self.temperature + label, labels)
