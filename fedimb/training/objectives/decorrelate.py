"""Decorrelation of features: FedDecorr's term, against features that collapse onto few dimensions.

Shi et al., "Towards Understanding and Mitigating Dimensional Collapse in Heterogeneous Federated Learning", ICLR 2023;
also the third term of FedLF (ACML 2024).
"""

import math

from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.training.objectives.base import LocalObjective

_LEAST = 1e-8
"""Added to a variance: the root has no derivative at 0, the variance of a unit that is never active."""


@register(
    "objective", "decorrelate", stackable=False, tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse")
)
class Decorrelate(LocalObjective):
    """Adds weight times the mean over all d^2 entries of the squared correlations between two different features in the
    batch; a batch of one row has none.

    Args:
        weight: beta, >= 0 and finite.

    Raises:
        ConfigError: any other weight.
    """

    def __init__(self, weight: float = 0.1) -> None:
        if not 0 <= weight < math.inf:
            raise ConfigError(f"objective 'decorrelate': weight must be >= 0 and finite; got {weight}")
        self.weight = weight

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """The weighted term, or None for one row."""
        if not self.weight or len(features) < 2:
            return None
        return self.weight * correlation(features)


def correlation(features: Tensor) -> Tensor:
    """Features [n, d], n >= 2 -> mean over all d^2 entries of the squared off-diagonal correlations, a scalar.

    A feature that does not vary in the batch has correlation 0 with every other.
    """
    rows = len(features) - 1
    centred = features - features.mean(dim=0)
    scaled = centred / (centred.square().sum(dim=0) / rows + _LEAST).sqrt()
    matrix = scaled.T @ scaled / rows
    return (matrix - matrix.diag().diag()).square().mean()
