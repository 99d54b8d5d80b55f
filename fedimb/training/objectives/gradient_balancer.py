"""Fed-GraB's gradient balancer: for each tail class a controller that weighs the loss's gradient in that class's logit
until its positive and negative parts have the same size.

Xiao et al., "Fed-GraB: Federated Long-tailed Learning with Self-Adjusting Gradient Balancer", NeurIPS 2023, with one
sigmoid per class (loss `bce`). For a controlled class c, e = N_c - P_c is the difference of the accumulated absolute
gradients of rows without and with the class, weighted as below, at the start of a batch:

    u += Kp (e - e1) + Ki e + Kd (e - 2 e1 + e2),  then e2 = e1, e1 = e    (incremental PID, from 0)
    gradients of rows with the class times g(u), of the others times g(-u), g(u) = (10/9) / (1/9 + exp(-u / 2))

g(0) = 1 and g is in (0, 10). The controllers stay at the client. Which classes are controlled: the ``tail`` rarest by
the softmax of the received head's row norms (`fedimb.training.prior.prior_of_head`), so that nothing more is sent:
the paper's server computes the same from the same weights. Their code lets some tail classes pass at random and never
trains the head, from which the estimate then reads nothing; here the head is trained and no class passes. u is
bounded here, which was intended there and has no effect.
"""

import math

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.records import array_record, to_numpy
from fedimb.registry import register
from fedimb.training.losses.base import targets_of
from fedimb.training.objectives.base import LocalObjective, trained_model
from fedimb.training.prior import prior_of_head

_STATE = "term.gradient_balancer"
_BOUND = 100.0
_KEPT = ("positive", "negative", "error", "error_before", "output")


def gain(output: Tensor) -> Tensor:
    """g(u), elementwise: 1 at 0, towards 10 and 0."""
    return (10 / 9) / (1 / 9 + torch.exp(-output / 2))


class Controllers:
    """One controller per class: accumulated gradients, the last two errors and the output, each [C] float64.

    Args:
        controlled: [C] bool; the gain of every other class is 1.
        kp, ki, kd: gains of the controller.
        state: what `state` returned, or None.
    """

    def __init__(
        self, controlled: Tensor, kp: float, ki: float, kd: float, state: dict[str, Tensor] | None = None
    ) -> None:
        self.controlled, self.kp, self.ki, self.kd = controlled, kp, ki, kd
        zeros = torch.zeros(len(controlled), dtype=torch.float64, device=controlled.device)
        values = {name: zeros if state is None else state[name].to(zeros) for name in _KEPT}
        self.positive, self.negative, self.error, self.error_before, self.output = values.values()

    def state(self) -> dict[str, Tensor]:
        """All that outlasts a batch."""
        return {name: getattr(self, name) for name in _KEPT}

    def step(self) -> None:
        """The outputs for the next batch, from what has accumulated."""
        error = self.negative - self.positive
        change = self.kp * (error - self.error) + self.ki * error
        change = change + self.kd * (error - 2 * self.error + self.error_before)
        moved = (self.output + change).clamp(-_BOUND, _BOUND)
        self.output = torch.where(self.controlled, moved, self.output)
        self.error_before = torch.where(self.controlled, self.error, self.error_before)
        self.error = torch.where(self.controlled, error, self.error)

    def weigh(self, gradient: Tensor, targets: Tensor) -> Tensor:
        """The gradient [n, C] in the logits with its weights; the weighted absolute values are accumulated.

        Args:
            targets: [n, C] of 0 and 1.
        """
        ones = torch.ones_like(self.output)
        up, down = (torch.where(self.controlled, gain(sign * self.output), ones) for sign in (1, -1))
        weighed = gradient * torch.where(targets > 0, up, down).to(gradient.dtype)
        size = weighed.detach().abs().double()
        self.positive = self.positive + (size * targets).sum(dim=0)
        self.negative = self.negative + (size * (1 - targets)).sum(dim=0)
        return weighed


@register(
    "objective",
    "gradient_balancer",
    stackable=False,
    keeps_state=True,
    adjusts_logits=True,
    needs_loss=("bce",),
)
class GradientBalancer(LocalObjective):
    """Weighs the loss's gradient in the logits of the rarest classes until its positive and negative parts balance.

    Args:
        tail: number of controlled classes, the rarest by the received head; 0 controls none, which is the loss alone.
        kp, ki, kd: gains of the controllers, >= 0 and finite.

    Raises:
        ConfigError: any other value.
    """

    def __init__(self, tail: int, kp: float = 10.0, ki: float = 0.01, kd: float = 0.1) -> None:
        if tail < 0:
            raise ConfigError(f"objective 'gradient_balancer': tail must be >= 0; got {tail}")
        for name, value in {"kp": kp, "ki": ki, "kd": kd}.items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"objective 'gradient_balancer': {name} must be >= 0 and finite; got {value}")
        self.tail, self.kp, self.ki, self.kd = tail, kp, ki, kd
        self._key = f"{_STATE}/global/0"
        self._kept: dict[str, Tensor] | None = None
        self._controllers: Controllers | None = None

    def check(self, n_classes: int) -> None:
        """Refuse to control more classes than there are."""
        if self.tail > n_classes:
            raise ConfigError(
                f"objective 'gradient_balancer': tail={self.tail}, but there are {n_classes} classes; set "
                f"aggregator.tail to at most {n_classes}"
            )

    def receive(self, content: RecordDict, state: RecordDict) -> None:
        """Read the controllers of this model's weights."""
        self._key = f"{_STATE}/{trained_model(content)}"
        if self._key in state:
            kept = to_numpy(state.array_records[self._key])
            self._kept = {name: torch.from_numpy(value.copy()) for name, value in kept.items()}

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Choose the controlled classes by the received head."""
        assert isinstance(model, Classifier)
        shares = prior_of_head(model.head.weight.detach().cpu().numpy())
        self.check(len(shares))
        controlled = torch.zeros(len(shares), dtype=torch.bool)
        controlled[torch.from_numpy(np.argsort(shares, kind="stable")[: self.tail].copy())] = True
        device = model.head.weight.device
        self._controllers = Controllers(controlled.to(device), self.kp, self.ki, self.kd, self._kept)

    def on_logits(self, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The same logits, whose gradient is weighed on the way back."""
        assert self._controllers is not None
        controllers, targets = self._controllers, targets_of(logits, labels)
        controllers.step()
        seen = logits.clone()
        seen.register_hook(lambda gradient: controllers.weigh(gradient, targets))
        return seen

    def keep(self, state: RecordDict) -> None:
        """Keep the controllers of this model, and remove those of earlier weights of the same name."""
        if self._controllers is None:
            return
        kept = {name: value.cpu().numpy() for name, value in self._controllers.state().items()}
        if not all(np.isfinite(value).all() for value in kept.values()):
            return
        name = self._key.rpartition("/")[0]
        for old in [key for key in state if key.rpartition("/")[0] == name]:
            del state[old]
        state[self._key] = array_record(kept)
