"""Multi-layer perceptron with ReLU, 64-48-10 by default."""

import itertools
import math

from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.models.heads import OWN_HEAD, Head, build_head
from fedimb.registry import register


@register("model", "mlp", stackable=True, when=OWN_HEAD)
class MLP(Classifier):
    """Flatten, then linear layers with ReLU between; the last hidden layer is ``features``.

    Args:
        hidden: widths of the hidden layers; empty for logistic regression.
        n_classes: outputs (given by fedimb).
        input_shape: shape of one input, without the batch axis (given by fedimb).
        head: ``linear`` or ``cosine``.
    """

    def __init__(
        self, n_classes: int, input_shape: tuple[int, ...], hidden: list[int] | None = None, head: Head = "linear"
    ) -> None:
        super().__init__()
        if hidden and min(hidden) < 1:
            raise ConfigError(f"model 'mlp': hidden={hidden}: give widths of at least 1")
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

    def dense(self) -> list[str]:
        """See `fedimb.models.stacking`."""
        linear = [f"body.{name}" for name, layer in self.body.named_children() if isinstance(layer, nn.Linear)]
        return [*linear, "head"]
