"""Multi-layer perceptron with ReLU: the yardstick's 64-48-10 by default."""

import itertools
import math
from collections.abc import Mapping

from torch import Tensor, nn

from fedimb.models.base import Classifier
from fedimb.models.heads import Head, build_head
from fedimb.models.stacking import stacked_head, stacked_linear
from fedimb.registry import register


@register("model", "mlp", stackable=True)
class MLP(Classifier):
    """Flatten, then linear layers with ReLU between; the last hidden layer is ``features``.

    Args:
        hidden: widths of the hidden layers; empty makes it logistic regression.
        n_classes: outputs (given by fedimb).
        input_shape: shape of one input, without the batch axis (given by fedimb).
        head: ``linear`` or ``cosine``.
    """

    def __init__(
        self, n_classes: int, input_shape: tuple[int, ...], hidden: list[int] | None = None, head: Head = "linear"
    ) -> None:
        super().__init__()
        widths = [math.prod(input_shape), *(hidden if hidden is not None else [48])]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = build_head(head, widths[-1], n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Inputs [n, *input_shape] -> [n, hidden[-1]]."""
        out: Tensor = self.body(x)
        return out

    def stacked(self, parameters: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """K models at once: parameters by name [K, *shape], inputs [K, b, *input_shape] -> features, logits."""
        out = x.flatten(2)
        for name, layer in self.body.named_children():
            if isinstance(layer, nn.Linear):
                weight, bias = parameters[f"body.{name}.weight"], parameters[f"body.{name}.bias"]
                out = stacked_linear(out, weight, bias).relu()
        return out, stacked_head(self.head, parameters, out)
