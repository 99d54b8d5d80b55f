"""Base class of classifiers: ``features`` and a linear ``head``, both of which calibration and selection can use."""

from collections.abc import Callable, Mapping

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
        private: whether a parameter or buffer of this name is not sent.
    """

    def __init__(self, model: nn.Module, private: Callable[[str], bool] = lambda name: False) -> None:
        self.model = model
        self._parameters = dict(model.named_parameters())
        self._buffers = dict(model.named_buffers())
        self._persistent = set(model.state_dict()) if self._buffers else set()
        self._private = {name for name in (*self._parameters, *self._persistent) if private(name)}

    def parameters(self) -> dict[str, np.ndarray]:
        """Trainable parameters by name, copied to numpy, without private ones: what an aggregator gets."""
        own = self._parameters.items()
        return {n: _copied(p) for n, p in own if p.requires_grad and n not in self._private}

    def buffers(self) -> dict[str, np.ndarray]:
        """Persistent buffers, copied to numpy, without private ones. Buffers are not trained but are sent; frozen
        parameters are neither."""
        own = self._buffers.items()
        return {n: _copied(b) for n, b in own if n in self._persistent and n not in self._private}

    def private(self) -> dict[str, np.ndarray]:
        """Private parameters, if they are trainable, and private persistent buffers, by name, copied to numpy."""
        own: list[tuple[str, Tensor]] = [(n, p) for n, p in self._parameters.items() if p.requires_grad]
        own += [(n, b) for n, b in self._buffers.items() if n in self._persistent]
        return {n: _copied(value) for n, value in own if n in self._private}

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


def _copied(value: Tensor) -> np.ndarray:
    copied: np.ndarray = value.detach().cpu().numpy().copy()
    return copied


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
