"""Many dense models of one shape at once: weights stacked [K, *shape], inputs [K, b, *input_shape].

A model opts in with a method ``dense() -> names of its linear layers``, first to last, with only ReLU between them;
every other model uses torch.func.vmap.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fedimb.models.base import Classifier


def dense_layers(model: Classifier) -> list[str] | None:
    """Names of the linear layers of the model, or None: also if a subclass changed the computation."""
    owners = {name: next((c for c in type(model).__mro__ if name in vars(c)), None) for name in ("dense", "features")}
    dense, features = owners["dense"], owners["features"]
    if dense is None or features is None or not issubclass(dense, features):
        return None
    if type(model.head) is not nn.Linear or type(model).forward is not Classifier.forward:
        return None
    layers: list[str] = model.dense()  # type: ignore[operator]
    return layers


class DenseStack:
    """K dense models with manual forward and backward passes: in a small step autograd costs more than the arithmetic.

    The products are those of nn.Linear and its backward pass, so results agree up to rounding; a model's result does
    not depend on the others in the stack. Buffers are allocated once, for one K and b.

    Args:
        layers: names of the linear layers, first to last.
        weights: ``<layer>.weight`` [K, o, i] and ``<layer>.bias`` [K, o] float32; read at every call.
        rows: b.
    """

    def __init__(self, layers: Sequence[str], weights: Mapping[str, Tensor], rows: int) -> None:
        self._weights = [weights[f"{layer}.weight"].detach() for layer in layers]
        self._turned = [weight.transpose(1, 2) for weight in self._weights]
        self._bias = [weights[f"{layer}.bias"].detach()[:, None] for layer in layers]
        self._outputs = [weight.new_empty(len(weight), rows, weight.shape[1]) for weight in self._weights]
        self._layers = list(layers)
        self._slopes: list[Tensor] = []
        self._gradients: dict[str, Tensor] = {}
        self._inputs: list[Tensor] = []

    @property
    def features(self) -> Tensor:
        """Input of the last layer in the last call of `logits` [K, b, d]; overwritten by the next call."""
        return self._inputs[-1]

    def logits(self, x: Tensor) -> Tensor:
        """Inputs [K, b, *input_shape] -> [K, b, C]; overwritten by the next call."""
        self._inputs = [x.flatten(2), *self._outputs[:-1]]
        last = len(self._layers) - 1
        for i, (value, out) in enumerate(zip(self._inputs, self._outputs, strict=True)):
            torch.baddbmm(self._bias[i], value, self._turned[i], out=out)
            if i < last:
                out.relu_()
        return self._outputs[-1]

    def backward(self, gradient: Tensor) -> dict[str, Tensor]:
        """Gradient of the last `logits` [K, b, C] -> gradients of the weights, by name; overwritten by the next
        call."""
        if not self._gradients:
            for layer, weight in zip(self._layers, self._weights, strict=True):
                self._gradients[f"{layer}.weight"] = torch.empty_like(weight)
                self._gradients[f"{layer}.bias"] = weight.new_empty(weight.shape[:2])
            self._slopes = [torch.empty_like(out) for out in self._outputs[:-1]]
        for i in reversed(range(len(self._layers))):
            layer = self._layers[i]
            torch.bmm(gradient.transpose(1, 2), self._inputs[i], out=self._gradients[f"{layer}.weight"])
            torch.sum(gradient, 1, out=self._gradients[f"{layer}.bias"])
            if i:
                below = torch.bmm(gradient, self._weights[i], out=self._slopes[i - 1])
                gradient = below.mul_(self._outputs[i - 1] > 0)
        return self._gradients
