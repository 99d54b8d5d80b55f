"""Optimisers of the local loop: our own SGD on whole parameter lists (no Python loop over parameters), Adam from
torch."""

from typing import Any

import torch
from torch import Tensor


class SGD:
    """Plain SGD with heavy-ball momentum and L2 weight decay, as torch.optim.SGD computes it.

    torch.optim.SGD costs as much as the arithmetic of a small model's step; this is four fused calls.
    """

    def __init__(self, parameters: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        self.parameters, self.lr, self.momentum, self.weight_decay = parameters, lr, momentum, weight_decay
        self._velocity: list[Tensor] | None = None

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next steps; the momentum stays."""
        self.lr = lr

    def narrow(self, parameters: list[Tensor]) -> None:
        """Continue with only the first clients of the parameters stacked [K, *shape]."""
        self.parameters = parameters
        if self._velocity is not None:
            self._velocity = [v[: len(p)] for v, p in zip(self._velocity, parameters, strict=True)]

    @torch.no_grad()
    def step(self, gradients: list[Tensor]) -> None:
        """Update the parameters in place from their gradients (which may be overwritten)."""
        if self.weight_decay:
            torch._foreach_add_(gradients, self.parameters, alpha=self.weight_decay)
        if self.momentum:
            if self._velocity is None:
                self._velocity = [g.clone() for g in gradients]
            else:
                torch._foreach_mul_(self._velocity, self.momentum)
                torch._foreach_add_(self._velocity, gradients)
            gradients = self._velocity
        torch._foreach_add_(self.parameters, gradients, alpha=-self.lr)


class Adam:
    """torch.optim.Adam with the same interface as `SGD`."""

    def __init__(self, parameters: list[Tensor], lr: float, weight_decay: float) -> None:
        self.parameters = parameters
        self._settings: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "foreach": True}
        self._adam = torch.optim.Adam(parameters, **self._settings)

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next steps; the moments stay."""
        self._settings["lr"] = lr
        for group in self._adam.param_groups:
            group["lr"] = lr

    def narrow(self, parameters: list[Tensor]) -> None:
        """Continue with only the first clients of the parameters stacked [K, *shape]."""
        moments = [self._adam.state[p] for p in self.parameters]
        self.parameters, self._adam = parameters, torch.optim.Adam(parameters, **self._settings)
        for parameter, state in zip(parameters, moments, strict=True):
            if state:
                kept = {key: value[: len(parameter)] for key, value in state.items() if key != "step"}
                self._adam.state[parameter] = {"step": state["step"], **kept}

    def step(self, gradients: list[Tensor]) -> None:
        """Update the parameters in place from their gradients."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)


Optimizer = SGD | Adam


def build_optimizer(name: str, parameters: list[Tensor], lr: float, momentum: float, weight_decay: float) -> Optimizer:
    """``sgd`` or ``adam``; the configuration has already been checked, so anything else is an assertion."""
    if name == "sgd":
        return SGD(parameters, lr, momentum, weight_decay)
    assert name == "adam", name
    return Adam(parameters, lr, weight_decay)
