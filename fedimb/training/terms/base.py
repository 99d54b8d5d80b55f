"""LocalTerm: what an aggregator or method adds to a client's local objective, without a loop of its own."""

import numpy as np
from flwr.app import RecordDict
from torch import Tensor, nn


class LocalTerm:
    """Override what is needed; the local loop calls each in the order the terms are configured.

    ``stackable`` says whether the term may run on many clients' stacked parameters at once.
    """

    stackable = False

    def receive(self, content: RecordDict, state: RecordDict) -> None:
        """Called first: what the server sent with the round, and what this client kept from earlier rounds."""

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Called once, after the global weights are loaded and before the first step.

        Args:
            model: the resident model.
            parameters: its trainable parameters; the tensors are updated in place while training.
        """

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """A scalar added to the batch loss, or None. features [n, d], logits [n, C], labels [n]."""
        return None

    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Change the gradients in place before the optimiser's step."""

    def after(self, model: nn.Module, steps: int) -> dict[str, dict[str, np.ndarray]]:
        """Records to send with the reply: ``{"x.name": {"key": array}}``. The contract must declare them."""
        return {}

    def keep(self, state: RecordDict) -> None:
        """Called last: write into ``state`` what must survive to this client's next round."""
