"""A head that clients receive and return as it was: only the body (and what the head has beside its rows) is
trained."""

import numpy as np
from torch import Tensor, nn

from fedimb.models.base import Classifier
from fedimb.training.objectives.base import LocalObjective


class FrozenHead(LocalObjective):
    """Keeps the head's rows as received; built by a method's client side, not by name.

    The rows stay parameters of the model, so they are sent with it and the server may replace them.
    """

    def __init__(self) -> None:
        self._weight: Tensor | None = None
        self._received: Tensor | None = None

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Store the received rows."""
        assert isinstance(model, Classifier)
        self._weight = model.head.weight
        self._received = model.head.weight.detach().clone()

    def on_batch(self, inputs: Tensor) -> None:
        """Undo what the optimiser did to the rows in the last step: weight decay and momentum move them too."""
        self._restore()

    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """No gradient in the rows."""
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if parameter is self._weight:
                gradient.zero_()

    def after(self, model: nn.Module, steps: int) -> dict[str, dict[str, np.ndarray]]:
        """Nothing is sent beside the model, whose rows are those received."""
        self._restore()
        return {}

    def _restore(self) -> None:
        assert self._weight is not None
        assert self._received is not None
        self._weight.data.copy_(self._received)
