"""LocalObjective: what an aggregator or method adds to a client's local objective, without a loop of its own."""

from typing import Any

import numpy as np
from flwr.app import RecordDict
from torch import Tensor, nn

from fedimb.contracts.platform import STEP


def trained_model(content: RecordDict) -> str:
    """Which weights a train message is about: the model's name, and how many `Reset` steps came before.

    What a term keeps at the client belongs to these weights alone; after a reset it is about others.
    """
    step: dict[str, Any] = dict(content.config_records[STEP]) if STEP in content else {}
    return f"{step.get('model', 'global')}/{step.get('resets', 0)}"


class LocalObjective:
    """Override what is needed; the local loop calls each in the order the terms are configured.

    ``stackable`` says whether one term may serve many clients' stacked parameters [K, *shape] at once, all of which
    start from the same weights: it uses only the parameters in `setup`, and `on_gradients`, treats every element for
    itself, and accepts in `on_gradients` the first clients alone, as those with fewer steps are done earlier.
    """

    stackable = False

    def receive(self, content: RecordDict, state: RecordDict) -> None:
        """Called first: what the server sent with the round, and what this client kept from earlier rounds."""

    def on_rows(self, labels: Tensor) -> None:
        """Called once, before `setup`: labels [n] int64 of all rows this client trains on in this round."""

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Called once, after the global weights are loaded and before the first step.

        Args:
            model: the resident model.
            parameters: its trainable parameters; the tensors are updated in place while training.
        """

    def on_batch(self, inputs: Tensor) -> None:
        """Called before each step's forward pass with inputs [b, *shape] as the model will see them."""

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """A scalar added to the batch loss, or None. features [n, d], logits [n, C], labels [n]."""
        return None

    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Change the gradients in place before the optimiser's step."""

    def after(self, model: nn.Module, steps: int) -> dict[str, dict[str, np.ndarray]]:
        """Records to send with the reply: ``{"x.name": {"key": array}}``; called only if a step was run.

        The term declares them when it is registered: ``@register("term", "mine", sends=(Record("x.name", ...),))``.
        """
        return {}

    def keep(self, state: RecordDict) -> None:
        """Called last: write into ``state`` what must survive to this client's next round."""
