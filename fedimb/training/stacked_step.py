"""One step of K clients at once: their losses and the gradients of their stacked weights.

Computed manually for dense models, with torch.func.vmap and autograd for others.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fedimb.models.base import Classifier
from fedimb.models.stacking import DenseStack, dense_layers
from fedimb.training.losses.base import RowLoss
from fedimb.training.optim import gradients_of

Gradient = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, list[Tensor]]]
"""(rows of a step, labels, weights in the mean, each [K, b]) -> weighted losses [K, b], gradients [K, *shape].

The returned tensors may be overwritten by the next call.
"""


class StackedStep:
    """The steps of one stack of clients.

    Args:
        model: see `why_model_not_stackable`; switched to training mode.
        x: rows of all clients [n, *shape] float32.
        width: b.
    """

    def __init__(self, model: Classifier, x: Tensor, width: int) -> None:
        model.train()
        self._model, self._width, self._layers = model, width, dense_layers(model)
        self._x = x if self._layers is None else x.flatten(1)
        self._frozen = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}

    def of(self, weights: Mapping[str, Tensor], loss: RowLoss) -> Gradient:
        """The function that computes a step's gradients, for the first K clients.

        Args:
            weights: trained weights by name [K, *shape], in the order of the gradients; read at every call.
            loss: of all K clients, see `stacked_loss`.
        """
        clients = len(next(iter(weights.values())))
        everything = dict(weights) | {n: p.expand(clients, *p.shape) for n, p in self._frozen.items()}
        if self._layers is not None:
            return _by_hand(DenseStack(self._layers, everything, self._width), list(weights), loss, self._x)
        return _by_autograd(self._model, weights, everything, loss, self._x)


def stacked_loss(losses: Sequence[RowLoss]) -> RowLoss:
    """One loss for the batches of K clients: buffers that differ are stacked [K, 1, C]."""
    stacked = copy.copy(losses[0])  # shallow: a deep copy of a module takes milliseconds
    stacked._buffers = dict(losses[0]._buffers)
    for name, first in losses[0].named_buffers(recurse=False):
        own: list[Tensor] = [getattr(loss, name) for loss in losses]
        if not all(torch.equal(first, other) for other in own):
            stacked._buffers[name] = torch.stack(own)[:, None]
    return stacked


def _by_hand(nets: DenseStack, names: list[str], loss: RowLoss, x: Tensor) -> Gradient:
    def gradient(picked: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, list[Tensor]]:
        inputs = x.index_select(0, picked.reshape(-1)).view(*picked.shape, -1)
        rows, slope = loss.loss_and_grad(nets.logits(inputs), labels, weight)
        found = nets.backward(slope)
        return rows, [found[name] for name in names]

    return gradient


def _by_autograd(
    model: Classifier,
    weights: Mapping[str, Tensor],
    everything: Mapping[str, Tensor],
    loss: RowLoss,
    x: Tensor,
) -> Gradient:
    def one(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, weights, (x,))

    many = torch.func.vmap(one)
    leaves = [weight.requires_grad_() for weight in weights.values()]

    def gradient(picked: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, list[Tensor]]:
        with torch.enable_grad():
            logits = many(dict(everything), x[picked])
            rows = loss.rows(logits, labels) * weight
            # Their sum: grad_outputs would make torch import sympy, which takes seconds.
            found = gradients_of(rows.sum(), leaves)
        return rows.detach(), found

    return gradient
