"""Distillation from the received model, so that a client does not forget what others know.

Li and Hoiem, "Learning without Forgetting", TPAMI 2018; Shuai et al., "BalanceFL", IPSN 2022 (knowledge inheritance);
Guo et al., "FedVLS", AAAI 2025 (vacant-class distillation). The teacher is a copy of the weights that the client
received, so nothing else is sent.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.training.distillation import Balance, balance_factor
from fedimb.training.objectives.base import LocalObjective


@register("objective", "distil", stackable=False, distils=True)
class Distil(LocalObjective):
    """Adds weight T^2 KL(softmax(t / T) || softmax(z / T)), the batch mean over logits z of the model trained and t of
    the model received (in evaluation mode); T^2 keeps the gradient's size the same for every T.

    Args:
        weight: lambda, >= 0 and finite.
        temperature: T, > 0 and finite.
        absent_only: softmax over the classes without training rows at this client, as BalanceFL and FedVLS do. The
            term is then 0 for a client that lacks fewer than two classes: a single class always has probability 1.
        balance: factor on the weight by how even the client's classes are (`fedimb.training.distillation`): ``none``,
            ``entropy`` or its ``complement``, as of LT-CIL's entropy-aware distillation.

    Raises:
        ConfigError: any other weight or temperature.
    """

    def __init__(
        self, weight: float = 1.0, temperature: float = 2.0, absent_only: bool = False, balance: Balance = "none"
    ) -> None:
        if not 0 <= weight < math.inf:
            raise ConfigError(f"objective 'distil': weight must be >= 0 and finite; got {weight}")
        if not 0 < temperature < math.inf:
            raise ConfigError(f"objective 'distil': temperature must be > 0 and finite; got {temperature}")
        self.weight, self.temperature, self.absent_only = weight, temperature, absent_only
        self._balance, self._rows = balance, torch.zeros(0)
        self._teacher: nn.Module | None = None
        self._present = self._target = torch.zeros(0)

    def on_rows(self, labels: Tensor) -> None:
        """Store the classes that the client holds, and the rows of each."""
        self._present, self._rows = labels.unique(return_counts=True)

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Copy the received model."""
        self._teacher = copy.deepcopy(model).eval().requires_grad_(False) if self.weight else None

    @torch.no_grad()
    def on_batch(self, inputs: Tensor) -> None:
        """The teacher's logits [b, C]."""
        if self._teacher is not None:
            self._target = self._teacher(inputs)

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """The weighted divergence, or None if there is nothing to distil."""
        if self._teacher is None:
            return None
        target, classes = self._target, logits.shape[1]
        if self.absent_only:
            absent = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
            absent[self._present] = False
            if int(absent.sum()) < 2:
                return None
            logits, target = logits[:, absent], target[:, absent]
        weight = self.weight * balance_factor(self._rows, self._balance, classes)
        return weight * divergence(logits, target, self.temperature)


def divergence(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(target / T) || softmax(logits / T)), both [n, C]: the mean over the rows, a scalar."""
    ours, theirs = (log_softmax(z / temperature, dim=1) for z in (logits, target))
    return temperature**2 * kl_div(ours, theirs, reduction="batchmean", log_target=True)
