"""Distillation from the received model on unlabelled rows, against forgetting the classes that a client lacks.

KAFAL: Cao et al., "Knowledge-Aware Federated Active Learning with Non-IID Data", ICCV 2023; its training part (KCFU):
in addition to balanced softmax over the client's own label counts, distillation from the received model on unlabelled
rows mixed in pairs (mixup, Beta(2, 2)), with classes weighted inversely to their labels at the client.

Choices that the paper leaves open: one mixing coefficient per batch and as many mixed rows as the batch has; weights
scaled to a mean of 1; a class without labels counts as ``floor``; and a row's weight follows the teacher's prediction.
With weights on the classes' terms of the divergence its minimum would be at w_c p_c instead of p_c, and a teacher that
is the last round's student would drift to the rare classes, round by round. The teacher is a copy of the weights that
the client received, so nothing else is sent.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from fedimb.errors import ConfigError
from fedimb.training.objectives.base import LocalObjective


def mixture(generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """A draw from Beta(2, 2), a scalar tensor float32: the median of three uniform draws."""
    return torch.rand(3, generator=generator, device=device).median()


def class_weights(counts: Tensor, floor: float = 1.0) -> Tensor:
    """Inverse of the counts [C], none below ``floor``, with a mean of 1: [C] float32."""
    inverse = 1 / counts.double().clamp_min(floor)
    return (inverse / inverse.mean()).float()


class Compensation(LocalObjective):
    """Adds weight T^2 mean_i (sum_c w_c p_ic) KL(p_i || q_i) over mixed rows i, p the received model's softmax at
    temperature T (in evaluation mode), q that of the model trained.

    It is built by a method's client side, which has the unlabelled rows, and not by name from a configuration.

    Args:
        rows: unlabelled rows [m, *shape] float32; without rows the term is 0.
        counts: labels of each class at the client, [C].
        generator: for all random draws, on the device of the rows.
        weight: lambda, >= 0 and finite.
        temperature: T, > 0 and finite.
        floor: count of a class without labels, > 0.

    Raises:
        ConfigError: any other weight, temperature or floor.
    """

    def __init__(
        self,
        rows: Tensor,
        counts: Tensor,
        generator: torch.Generator,
        weight: float = 1.0,
        temperature: float = 1.0,
        floor: float = 1.0,
    ) -> None:
        if not 0 <= weight < math.inf:
            raise ConfigError(f"objective 'compensation': weight must be >= 0 and finite; got {weight}")
        if not 0 < temperature < math.inf:
            raise ConfigError(f"objective 'compensation': temperature must be > 0 and finite; got {temperature}")
        if not floor > 0:
            raise ConfigError(f"objective 'compensation': floor must be > 0; got {floor}")
        self.rows, self.weight, self.temperature = rows, weight, temperature
        self.class_weights = class_weights(counts, floor).to(rows.device)
        self._generator = generator
        self._teacher: nn.Module | None = None
        self._mixed = self._target = torch.zeros(0)

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Copy the received model."""
        if self.weight and len(self.rows):
            self._teacher = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def on_batch(self, inputs: Tensor) -> None:
        """Mix as many unlabelled rows as the batch has, and compute the received model's predictions for them."""
        if self._teacher is None:
            return
        drawn = torch.randint(
            len(self.rows), (2, len(inputs)), generator=self._generator, device=self._generator.device
        )
        one, two = self.rows[drawn[0]], self.rows[drawn[1]]
        share = mixture(self._generator, self._generator.device)
        self._mixed = share * one + (1 - share) * two
        self._target = log_softmax(self._teacher(self._mixed) / self.temperature, dim=1)

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """The weighted divergence, or None if there is nothing to distil."""
        if self._teacher is None:
            return None
        ours = log_softmax(model(self._mixed) / self.temperature, dim=1)
        said = self._target.exp()
        divergence = ((said @ self.class_weights) * (said * (self._target - ours)).sum(1)).mean()
        return self.weight * self.temperature**2 * divergence
