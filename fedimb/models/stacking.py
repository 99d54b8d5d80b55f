"""Many models of one shape at once: weights stacked [K, *shape], inputs [K, b, *shape].

A model takes part by a method ``stacked(parameters, x) -> (features, logits)``; the others go through torch.func.vmap.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedimb.models.base import Classifier
from fedimb.models.heads import CosineHead, unit

Stacked = Callable[[Mapping[str, Tensor], Tensor], tuple[Tensor, Tensor]]
"""(parameters by name [K, *shape], inputs [K, b, *shape]) -> (features [K, b, d], logits [K, b, C])."""


def stacked_of(model: Classifier) -> Stacked | None:
    """The model's own stacked form, or None: also where a subclass changed what it would have to repeat."""
    owners = {name: next((c for c in type(model).__mro__ if name in vars(c)), None) for name in ("stacked", "features")}
    stacked, features = owners["stacked"], owners["features"]
    if stacked is None or features is None or not issubclass(stacked, features):
        return None
    if type(model.head) not in (nn.Linear, CosineHead) or type(model).forward is not Classifier.forward:
        return None
    return model.stacked  # type: ignore[return-value]


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """K linear layers at once: x [K, b, i], weight [K, o, i], bias [K, o] -> [K, b, o].

    Model k's result does not depend on which others are computed with it.
    """
    out: Tensor = _StackedLinear.apply(x, weight, bias)
    return out


class _StackedLinear(torch.autograd.Function):
    """The products that nn.Linear's backward makes, so that gradients agree with it and come in the weights' layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        turned = weight.transpose(1, 2)
        return x.bmm(turned) if bias is None else torch.baddbmm(bias[:, None], x, turned)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            grad.bmm(weight) if wanted[0] else None,
            grad.transpose(1, 2).bmm(x) if wanted[1] else None,
            grad.sum(1) if wanted[2] else None,
        )


def stacked_head(head: nn.Linear, parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """K heads at once: features [K, b, d], parameters by name [K, *shape] -> logits [K, b, C]."""
    weight = parameters["head.weight"]
    if isinstance(head, CosineHead):
        return head.scale * stacked_linear(unit(features), unit(weight), None)
    return stacked_linear(features, weight, parameters["head.bias"])
