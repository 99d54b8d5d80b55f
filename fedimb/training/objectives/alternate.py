"""FedRep's order of local training: first the head on a fixed backbone, then the backbone under a fixed head.

Collins et al., "Exploiting Shared Representations for Personalized Federated Learning", ICML 2021, algorithm 1.
"""

import numpy as np
import torch
from torch import Tensor, nn

from fedimb.models.base import Classifier
from fedimb.training.objectives.base import LocalObjective


class Alternate(LocalObjective):
    """Trains the head alone for the first steps and all else alone afterwards; built by a method's client side.

    What is not trained stays as it was to the bit, whatever momentum and weight decay do.

    Args:
        head_steps: number of first steps, which train the head.
    """

    def __init__(self, head_steps: int) -> None:
        self._left = head_steps
        self._head: list[Tensor] = []
        self._body: list[Tensor] = []
        self._kept: list[tuple[Tensor, Tensor]] = []

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Tell head from body, and keep the body as received."""
        assert isinstance(model, Classifier)
        own = {id(parameter) for parameter in model.head.parameters()}
        self._head = [p for p in parameters if id(p) in own]
        self._body = [p for p in parameters if id(p) not in own]
        self._hold(self._body if self._left > 0 else self._head)

    def _hold(self, fixed: list[Tensor]) -> None:
        self._kept = [(parameter, parameter.detach().clone()) for parameter in fixed]

    def on_batch(self, inputs: Tensor) -> None:
        """Undo what the last step did to what is fixed; change over when the head has had its steps."""
        self._restore()
        if self._left == 0:
            self._hold(self._head)
        self._left -= 1

    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """No gradient in what is fixed."""
        fixed = {id(parameter) for parameter, _ in self._kept}
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if id(parameter) in fixed:
                gradient.zero_()

    def after(self, model: nn.Module, steps: int) -> dict[str, dict[str, np.ndarray]]:
        """Nothing is sent beside the model."""
        self._restore()
        return {}

    def _restore(self) -> None:
        with torch.no_grad():
            for parameter, value in self._kept:
                parameter.copy_(value)
