"""Gradient consistency: each step's gradient is pulled towards the moving average of the client's gradients.

LT-CIL, arXiv 2605.03364, of which only the abstract is known here: a moving average of gradients suppresses abrupt
changes. This is our reading of it. With g the gradient of a step, of the loss and of the objectives before this one,

    m <- beta m + (1 - beta) g,    g' = g - strength (g - m),

and g' is what the optimiser gets; m begins with the first gradient. The first ``skip`` steps of a client only feed the
average. m and the number of steps stay at the client from round to round, as a round may have fewer steps than
``skip``; how the paper would begin in a federation is not known. Unlike momentum it weighs the present gradient by
1 - strength beta at least, and the optimiser's own momentum comes on top.
"""

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.records import array_record, to_numpy
from fedimb.registry import register
from fedimb.registry.arguments import Count, Decay, Share
from fedimb.training.objectives.base import LocalObjective, trained_model

_STATE = "term.grad_consistency"
_STEPS = "steps"
_MEAN = "mean."


@register(
    "objective",
    "grad_consistency",
    stackable=False,
    keeps_state=True,
    tasks=("multiclass", "multilabel"),
    unknown_labels=("cells", "coarse"),
)
class GradientConsistency(LocalObjective):
    """Pulls every gradient towards the moving average of this client's gradients; nothing is sent.

    Args:
        strength: share of the difference to the average that is taken away, 0 to 1; 0 changes nothing.
        beta: of the moving average, 0 <= beta < 1; 0: the average is the gradient itself, and nothing changes.
        skip: first steps of a client that are left as they are.

    Raises:
        ConfigError: any other value.
    """

    def __init__(self, strength: Share = 0.3, beta: Decay = 0.9, skip: Count = 10) -> None:
        if not 0 <= strength <= 1:
            raise ConfigError(f"objective 'grad_consistency': strength must be from 0 to 1; got {strength}")
        if not 0 <= beta < 1:
            raise ConfigError(f"objective 'grad_consistency': beta must be from 0 to below 1; got {beta}")
        if skip < 0:
            raise ConfigError(f"objective 'grad_consistency': skip must be >= 0; got {skip}")
        self.strength, self.beta, self.skip = strength, beta, skip
        self._key = f"{_STATE}/global/0"
        self._kept: dict[str, np.ndarray] = {}
        self._names: list[str] = []
        self._mean: list[Tensor] = []
        self._steps = 0

    def receive(self, content: RecordDict, state: RecordDict) -> None:
        """Read the average of this model's weights, and how many steps are in it."""
        self._key = f"{_STATE}/{trained_model(content)}"
        if self._key in state:
            self._kept = to_numpy(state.array_records[self._key])

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """The average in the order of the parameters; none before the first step."""
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        if self._kept:
            pairs = zip(self._names, parameters, strict=True)
            self._mean = [torch.from_numpy(self._kept[_MEAN + name].copy()).to(p.device) for name, p in pairs]
            self._steps = int(self._kept[_STEPS][0])

    @torch.no_grad()
    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """m <- beta m + (1 - beta) g, then gradients -= strength (g - m)."""
        if not self._mean:
            self._mean = [g.clone() for g in gradients]
        torch._foreach_lerp_(self._mean, gradients, 1 - self.beta)
        self._steps += 1
        if self._steps > self.skip:
            torch._foreach_lerp_(gradients, self._mean, self.strength)

    def keep(self, state: RecordDict) -> None:
        """Keep the average of this model, if it is finite, and remove that of earlier weights of the same name."""
        if not self._mean or not all(bool(one.isfinite().all()) for one in self._mean):
            return
        name = self._key.rpartition("/")[0]
        for old in [key for key in state if key.rpartition("/")[0] == name]:
            del state[old]
        kept = {_MEAN + name: one.cpu().numpy() for name, one in zip(self._names, self._mean, strict=True)}
        state[self._key] = array_record(kept | {_STEPS: np.array([self._steps], np.int64)})
