"""What every classifier offers: ``features`` and a linear ``head``, so calibration and selection can see both."""

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


def parameters_of(model: nn.Module) -> dict[str, np.ndarray]:
    """Trainable parameters by name, copied to numpy: what an aggregator may see."""
    return {n: p.detach().cpu().numpy().copy() for n, p in model.named_parameters() if p.requires_grad}


def buffers_of(model: nn.Module) -> dict[str, np.ndarray]:
    """Persistent buffers and frozen parameters are not trained; only persistent buffers travel. Copied to numpy."""
    kept = set(model.state_dict())
    return {n: b.detach().cpu().numpy().copy() for n, b in model.named_buffers() if n in kept}


@torch.no_grad()
def load_into(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy named tensors into a model's parameters and buffers in place.

    Raises:
        KeyError: a name the model does not have.
        RuntimeError: a shape that does not fit; never broadcast, as torch's own copy would.
    """
    targets = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, value in tensors.items():
        if value.shape != targets[name].shape:
            have, want = tuple(value.shape), tuple(targets[name].shape)
            raise RuntimeError(f"'{name}' has shape {have}, the model's has {want}: these weights are another model's")
        targets[name].copy_(value)
