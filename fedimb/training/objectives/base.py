"""LocalObjective: what an aggregator or method adds to a client's loss or gradients in the local training loop."""

from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from fedimb.contracts.platform import STEP


def trained_model(content: RecordDict) -> str:
    """Identifies the weights of a train message: the model's name, and the number of `Reset` steps so far.

    The state that a local objective keeps at the client belongs to these weights only; after a reset the weights are
    different ones.
    """
    step: dict[str, Any] = dict(content.config_records[STEP]) if STEP in content else {}
    return f"{step.get('model', 'global')}/{step.get('resets', 0)}"


class LocalObjective:
    """Base class of local objectives.

    Override what is needed; the local loop calls them in the configured order. ``stackable``: whether one instance can
    handle the stacked parameters [K, *shape] of many clients at once, all of which start from the same weights. It may
    then use only the parameters in `setup`, and `on_gradients`, must treat every element independently, and must accept
    in `on_gradients` only the first clients, since those with fewer steps finish earlier.
    """

    stackable = False

    def check(self, n_classes: int) -> None:
        """Called once before the run, where nothing is trained: raise ConfigError, with the remedy, for arguments that
        these data cannot have. Whatever `setup` would find out at every client in round 1 belongs here.

        Args:
            n_classes: number of classes of the data.
        """

    def check_rows(self, input_shape: tuple[int, ...]) -> None:
        """As `check`, for the shape of one row of these data."""

    def receive(self, content: RecordDict, state: RecordDict) -> None:
        """Called first, with the server's message of this round and this client's state from earlier rounds."""

    def on_rows(self, labels: Tensor) -> None:
        """Called once, before `setup`: labels [n] int64 of all rows this client trains on in this round."""

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Called once, after the global weights are loaded and before the first step.

        Args:
            model: the model in memory.
            parameters: its trainable parameters; the tensors are updated in place while training.
        """

    def before_training(self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """Called once, after `setup`; leave the model as it is, in training mode. Not called when clients are stacked.

        Args:
            model: the model in memory.
            inputs: [n, *shape] of all rows this client trains on, without augmentation.
            labels: [n] int64; the primary class if rows have several.
            generator: for all draws of this training, on the device of the rows.
        """

    def on_batch(self, inputs: Tensor) -> None:
        """Called before each step's forward pass with inputs [b, *shape] as passed to the model."""

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """A scalar added to the batch loss, or None. features [n, d], logits [n, C], labels [n]."""
        return None

    def on_logits(self, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The logits that the loss sees, of the same shape: the place to rewrite the loss's gradient in the logits
        (``logits.register_hook``), or to compute other logits for the loss. Not called when clients are stacked.

        Args:
            features: [n, d], the input of the head.
            logits: [n, C].
            labels: [n] int64, or targets [n, C].
        """
        return logits

    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Change the gradients in place before the optimiser's step."""

    def after(self, model: nn.Module, steps: int) -> dict[str, dict[str, np.ndarray]]:
        """Records to send with the reply: ``{"x.name": {"key": array}}``; called only if at least one step was run.

        The records are declared on registration: ``@register("objective", "mine", sends=(Record("x.name", ...),))``.
        """
        return {}

    def keep(self, state: RecordDict) -> None:
        """Called last: write into ``state`` what this client needs in its next round."""
