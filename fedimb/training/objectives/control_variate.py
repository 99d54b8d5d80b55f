"""SCAFFOLD at a client: each step is corrected by the difference between the global and the client's mean gradient.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, algorithm 1:
y <- y - lr (g(y) - c_k + c), and after the local steps c_k becomes c_k^+. Its option II is
c_k^+ = c_k - c + (x - y_K) / (K lr). After K steps of plain SGD from x, x - y_K = lr sum_i (g_i - c_k + c), so

    c_k^+ = c_k - c + (1/K) sum_i g_i - c_k + c = (1/K) sum_i g_i:

the mean of the raw gradients of all steps, which is what is computed here. It does not divide by the learning rate, and
it is the mean gradient also with momentum, weight decay and Adam, which option II would include; weight decay is the
same for every client and needs no correction.
"""

from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from fedimb.contracts.variate import SINCE, VARIATE
from fedimb.errors import FedimbError
from fedimb.records import Arrays, array_record, to_numpy
from fedimb.registry import register
from fedimb.training.objectives.base import LocalObjective, trained_model

_STATE = "term.control_variate"


@register(
    "objective",
    "control_variate",
    stackable=False,
    keeps_state=True,
    sends=(VARIATE,),
    needs_aggregator="scaffold",
    tasks=("multiclass", "multilabel"),
    unknown_labels=("cells", "coarse"),
)
class ControlVariate(LocalObjective):
    """Adds c - c_k to every gradient, sends the change of c_k, and keeps c_k at the client (0 before its first round).

    c_k is kept only if it and the trained weights are finite: the server leaves other replies out, and c must stay the
    mean of the clients' c_k. Local objectives configured before this one count as part of the gradient.
    """

    def __init__(self) -> None:
        self._key = ""
        self._server: Arrays = {}
        self._mine: Arrays = {}
        self._kept: Arrays | None = None
        self._names: list[str] = []
        self._correction: list[Tensor] = []
        self._sum: list[Tensor] = []

    def receive(self, content: RecordDict, state: RecordDict) -> None:
        """Read c from the message and c_k from the state.

        Raises:
            FedimbError: the server sent no c.
        """
        if VARIATE.key not in content:
            raise FedimbError(
                "the local objective 'control_variate' got no variate from the server: use aggregator=scaffold, or "
                "leave it out"
            )
        config: dict[str, Any] = dict(content.config_records["config"])
        self._key = f"{_STATE}/{trained_model(content).rpartition('/')[0]}/{config[SINCE]}"
        self._server = to_numpy(content.array_records[VARIATE.key])
        if self._key in state:
            self._mine = to_numpy(state.array_records[self._key])

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """The correction c - c_k in the order of the parameters."""
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        differences = [self._server[n] - self._mine.get(n, 0) for n in self._names]
        self._correction = [torch.from_numpy(d).to(p.device) for d, p in zip(differences, parameters, strict=True)]
        self._sum = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """gradients += c - c_k, after they are added to the sum."""
        torch._foreach_add_(self._sum, gradients)
        torch._foreach_add_(gradients, self._correction)

    def after(self, model: nn.Module, steps: int) -> dict[str, dict[str, np.ndarray]]:
        """``x.variate``: c_k^+ - c_k by parameter name."""
        new = {name: (total / steps).cpu().numpy() for name, total in zip(self._names, self._sum, strict=True)}
        trained = [p.detach().cpu().numpy() for p in model.parameters() if p.requires_grad]
        if all(np.isfinite(value).all() for value in [*new.values(), *trained]):
            self._kept = new
        return {VARIATE.key: {name: value - self._mine.get(name, 0) for name, value in new.items()}}

    def keep(self, state: RecordDict) -> None:
        """Replace c_k by c_k^+."""
        if self._kept is None:
            return
        name = self._key.rpartition("/")[0]
        for old in [key for key in state if key.rpartition("/")[0] == name]:
            del state[old]
        state[self._key] = array_record(self._kept)
