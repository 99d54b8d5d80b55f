"""Optimisers of the local loop: our own SGD on whole parameter lists (no Python loop over parameters), Adam from
torch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedimb.training.spec import TrainSpec

NORMS = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._NormBase, nn.RMSNorm)
"""Layers that normalise, for ``local.decay_exempt``."""


class SGD:
    """SGD with heavy-ball or Nesterov momentum and L2 weight decay, as torch.optim.SGD computes it.

    torch.optim.SGD costs as much as the arithmetic of a small model's step; this is four fused calls.

    Args:
        parameters: changed in place.
        decayed: whether each parameter decays; None: all do.
    """

    def __init__(
        self,
        parameters: list[Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
        nesterov: bool = False,
        decayed: Sequence[bool] | None = None,
    ) -> None:
        self.parameters, self.lr, self.momentum, self.weight_decay = parameters, lr, momentum, weight_decay
        self.nesterov = nesterov
        self._decayed = None if decayed is None or all(decayed) else list(decayed)
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
            if self._decayed is None:
                torch._foreach_add_(gradients, self.parameters, alpha=self.weight_decay)
            elif any(self._decayed):
                pairs = zip(gradients, self.parameters, self._decayed, strict=True)
                pulled, towards = zip(*[(g, p) for g, p, decays in pairs if decays], strict=True)
                torch._foreach_add_(pulled, towards, alpha=self.weight_decay)
        if self.momentum:
            if self._velocity is None:
                self._velocity = [g.clone() for g in gradients]
            else:
                torch._foreach_mul_(self._velocity, self.momentum)
                torch._foreach_add_(self._velocity, gradients)
            if self.nesterov:
                torch._foreach_add_(gradients, self._velocity, alpha=self.momentum)
            else:
                gradients = self._velocity
        torch._foreach_add_(self.parameters, gradients, alpha=-self.lr)


class Adam:
    """torch.optim.Adam with the same interface as `SGD`."""

    def __init__(
        self, parameters: list[Tensor], lr: float, weight_decay: float, decayed: Sequence[bool] | None = None
    ) -> None:
        self._decayed = [True] * len(parameters) if decayed is None else list(decayed)
        self._settings: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "foreach": True}
        self.parameters, self._adam = parameters, self._built(parameters)

    def _built(self, parameters: list[Tensor]) -> torch.optim.Adam:
        pairs = list(zip(parameters, self._decayed, strict=True))
        groups: list[dict[str, Any]] = [{"params": [p for p, decays in pairs if decays]}]
        groups.append({"params": [p for p, decays in pairs if not decays], "weight_decay": 0.0})
        return torch.optim.Adam([group for group in groups if group["params"]], **self._settings)

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next steps; the moments stay."""
        self._settings["lr"] = lr
        for group in self._adam.param_groups:
            group["lr"] = lr

    def narrow(self, parameters: list[Tensor]) -> None:
        """Continue with only the first clients of the parameters stacked [K, *shape]."""
        moments = [self._adam.state[p] for p in self.parameters]
        self.parameters, self._adam = parameters, self._built(parameters)
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


def build_optimizer(spec: TrainSpec, parameters: list[Tensor], decayed: Sequence[bool] | None = None) -> Optimizer:
    """The optimiser that a spec names; the configuration has already been checked, so another is an assertion.

    Args:
        decayed: see `decays`.
    """
    if spec.optimizer == "sgd":
        return SGD(parameters, spec.lr, spec.momentum, spec.weight_decay, spec.nesterov, decayed)
    assert spec.optimizer == "adam", spec.optimizer
    return Adam(parameters, spec.lr, spec.weight_decay, decayed)


def decays(module: nn.Module, exempt: Sequence[str]) -> list[bool]:
    """Whether each trainable parameter of a module decays, in the order of ``module.parameters()``.

    Args:
        exempt: ``norm``: parameters of normalisation layers; ``bias``: every parameter called bias.
    """
    normed = {id(p) for m in module.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
    return [
        not (("norm" in exempt and id(p) in normed) or ("bias" in exempt and name.rpartition(".")[2] == "bias"))
        for name, p in module.named_parameters()
        if p.requires_grad
    ]


def gradients_of(value: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a scalar; 0 for a parameter without influence on it (a branch, a class without rows).

    torch's ``materialize_grads`` does the same, at a cost that a small model's step feels.
    """
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@torch.no_grad()
def clip_gradients(gradients: list[Tensor], largest: float) -> None:
    """Scale gradients in place so that their common L2 norm is at most ``largest``, as torch's clip_grad_norm_."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, torch.clamp(largest / (norm + 1e-6), max=1.0))
