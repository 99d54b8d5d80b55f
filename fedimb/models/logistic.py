"""Multinomial logistic regression: the features are the inputs."""

import math

from torch import Tensor

from fedimb.models.base import Classifier
from fedimb.models.heads import OWN_HEAD, Head, build_head
from fedimb.registry import register


@register("model", "logistic", stackable=True, when=OWN_HEAD)
class Logistic(Classifier):
    """No hidden layer. The loss is convex, so differences between runs come from the federation, not from local minima.

    Args:
        n_classes: outputs (given by fedimb).
        input_shape: shape of one input, without the batch axis (given by fedimb).
        head: ``linear`` or ``cosine``.
    """

    def __init__(self, n_classes: int, input_shape: tuple[int, ...], head: Head = "linear") -> None:
        super().__init__()
        self.head = build_head(head, math.prod(input_shape), n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Inputs [n, *input_shape] -> the same, flattened [n, d]."""
        return x.flatten(1)

    def dense(self) -> list[str]:
        """See `fedimb.models.stacking`."""
        return ["head"]
