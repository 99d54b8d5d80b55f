"""Base class of classifiers: ``features`` and a linear ``head``, both of which calibration and selection can use."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """Base class. A subclass sets ``self.head`` (nn.Linear, [d] -> [n_classes]) and implements `features`."""

    head: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """Inputs [n, *shape] float32 -> penultimate features [n, d] float32."""
        raise NotImplementedError(f"{type(self).__name__} must implement features()")

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [n, *shape] float32 -> logits [n, n_classes] float32."""
        logits: Tensor = self.head(self.features(x))
        return logits


class Resident:
    """A model whose tensors are looked up once, so that reading and writing weights does not traverse its modules.

    Args:
        model: its parameters and buffers may change in value and ``requires_grad``, but must not be replaced.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._parameters = dict(model.named_parameters())
        self._buffers = dict(model.named_buffers())
        self._persistent = set(model.state_dict()) if self._buffers else set()

    def parameters(self) -> dict[str, np.ndarray]:
        """Trainable parameters by name, copied to numpy: what an aggregator gets."""
        return {n: p.detach().cpu().numpy().copy() for n, p in self._parameters.items() if p.requires_grad}

    def buffers(self) -> dict[str, np.ndarray]:
        """Persistent buffers, copied to numpy. Buffers are not trained but are sent; frozen parameters are neither."""
        return {n: b.detach().cpu().numpy().copy() for n, b in self._buffers.items() if n in self._persistent}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy named tensors into parameters and buffers in place.

        Raises:
            KeyError: a name the model does not have.
            RuntimeError: a shape that does not match; unlike torch's own copy it never broadcasts.
        """
        targets = self._parameters | self._buffers
        for name, value in tensors.items():
            if value.shape != targets[name].shape:
                have, want = tuple(value.shape), tuple(targets[name].shape)
                raise RuntimeError(
                    f"'{name}' has shape {have}, the model's has {want}: these weights belong to another model"
                )
            targets[name].copy_(value)


def parameters_of(model: nn.Module) -> dict[str, np.ndarray]:
    """See `Resident.parameters`."""
    return Resident(model).parameters()


def buffers_of(model: nn.Module) -> dict[str, np.ndarray]:
    """See `Resident.buffers`."""
    return Resident(model).buffers()


def head_arrays(model: Classifier) -> tuple[str, ...]:
    """Names of the trainable parameters of the head that have one row per class; empty if it is not trained."""
    own = {id(p) for p in model.head.parameters(recurse=False)}  # not of a projection beside the rows
    classes = model.head.out_features
    named = model.named_parameters()
    return tuple(n for n, p in named if id(p) in own and p.requires_grad and p.shape[:1] == (classes,))


def load_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """See `Resident.load`."""
    Resident(model).load(tensors)
