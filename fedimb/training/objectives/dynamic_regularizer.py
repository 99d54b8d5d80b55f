"""FedDyn at a client: the local objective gets a linear term from earlier rounds and a penalty towards the received
weights.

Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, algorithm 1:
f_k(w) - <h_k, w> + alpha/2 ||w - w^t||^2, and after the local steps h_k <- h_k - alpha (w_k - w^t).
"""

import math
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from fedimb.contracts.optimizer import SINCE
from fedimb.errors import ConfigError, FedimbError
from fedimb.records import Arrays, array_record, to_numpy
from fedimb.registry import register
from fedimb.training.objectives.base import LocalObjective, trained_model

_STATE = "term.dynamic_regularizer"


@register(
    "objective",
    "dynamic_regularizer",
    stackable=False,
    keeps_state=True,
    keeps_update=True,
    needs_aggregator="feddyn",
    tasks=("multiclass", "multilabel"),
    unknown_labels=("cells", "coarse"),
)
class DynamicRegularizer(LocalObjective):
    """Adds alpha (w - w^t) - h_k to every gradient; h_k stays at the client (0 before its first round).

    h_k is kept only if the trained weights are finite: the server leaves other replies out, and its h must stay the
    mean of the clients' h_k. Nothing is sent for it.

    Args:
        alpha: strength, > 0 and finite; the aggregator's.
        max_norm: largest L2 norm of a step's gradient including the added terms (without it a large alpha diverges), >
            0.

    Raises:
        ConfigError: any other alpha or max_norm.
    """

    def __init__(self, alpha: float, max_norm: float = 10.0) -> None:
        if not 0 < alpha < math.inf:
            raise ConfigError(f"objective 'dynamic_regularizer': alpha must be > 0 and finite; got {alpha}")
        if not max_norm > 0:
            raise ConfigError(f"objective 'dynamic_regularizer': max_norm must be > 0; got {max_norm}")
        self.alpha, self.max_norm = alpha, max_norm
        self._key = ""
        self._mine: Arrays = {}
        self._kept: Arrays | None = None
        self._names: list[str] = []
        self._start: list[Tensor] = []
        self._h: list[Tensor] = []

    def receive(self, content: RecordDict, state: RecordDict) -> None:
        """Read h_k from the state.

        Raises:
            FedimbError: the server does not use FedDyn.
        """
        config: dict[str, Any] = dict(content.config_records.get("config") or {})
        if SINCE not in config:
            raise FedimbError(
                "the local objective 'dynamic_regularizer' needs FedDyn at the server: use aggregator=feddyn"
            )
        self._key = f"{_STATE}/{trained_model(content).rpartition('/')[0]}/{config[SINCE]}"
        if self._key in state:
            self._mine = to_numpy(state.array_records[self._key])

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Store the received weights w^t, and h_k in the order of the parameters."""
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._start = [p.detach().clone() for p in parameters]
        kept = [self._mine.get(name) for name in self._names]
        self._h = [
            torch.zeros_like(p) if h is None else torch.from_numpy(h).to(p.device)
            for h, p in zip(kept, parameters, strict=True)
        ]

    @torch.no_grad()
    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """gradients += alpha (w - w^t) - h_k, then clipped to ``max_norm``."""
        torch._foreach_add_(gradients, torch._foreach_sub(parameters, self._start), alpha=self.alpha)
        torch._foreach_sub_(gradients, self._h)
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        if norm > self.max_norm:
            torch._foreach_mul_(gradients, float(self.max_norm / norm))

    def after(self, model: nn.Module, steps: int) -> dict[str, dict[str, np.ndarray]]:
        """Compute h_k - alpha (w_k - w^t) for `keep`; nothing is sent."""
        trained = [p.detach() for p in model.parameters() if p.requires_grad]
        new = torch._foreach_sub(self._h, torch._foreach_sub(trained, self._start), alpha=self.alpha)
        if all(bool(value.isfinite().all()) for value in [*new, *trained]):
            self._kept = {name: value.cpu().numpy() for name, value in zip(self._names, new, strict=True)}
        return {}

    def keep(self, state: RecordDict) -> None:
        """Replace the old h_k by the new one."""
        if self._kept is None:
            return
        name = self._key.rpartition("/")[0]
        for old in [key for key in state if key.rpartition("/")[0] == name]:
            del state[old]
        state[self._key] = array_record(self._kept)
