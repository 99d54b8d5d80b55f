"""A penalty on labels that never stand together, for rows with several labels.

The idea is that of AG-TAL (arXiv 2604.27357), which penalises neighbouring voxels of classes that never touch. For the
labels of one row the term is ours: the expected number of forbidden pairs if a row's labels were independent, weight
times the mean over rows of sum over pairs (a, b) of p_a p_b, p the sigmoids of the logits. Which pairs are forbidden is
knowledge of the domain: a pair that a client has not seen may still exist.
"""

import math

import torch
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.registry import register
from fedimb.training.objectives.base import LocalObjective


@register("objective", "cooccurrence", stackable=False, tasks=("multilabel",))
class ForbiddenPairs(LocalObjective):
    """Adds weight times the mean over rows of p_a p_b, summed over the forbidden pairs of labels.

    Args:
        pairs: the pairs of class ids, as in ``[[0, 3], [1, 2]]``; at least one.
        weight: >= 0 and finite.

    Raises:
        ConfigError: no pair, something else than two different ids, an id that is not a class, or any other weight.
    """

    def __init__(self, pairs: list[list[int]], weight: float = 1.0) -> None:
        if not 0 <= weight < math.inf:
            raise ConfigError(f"objective 'cooccurrence': weight must be >= 0 and finite; got {weight}")
        if not pairs:
            raise ConfigError("objective 'cooccurrence': pairs is empty: give pairs of class ids, as in [[0, 3]]")
        for pair in pairs:
            if len(pair) != 2 or pair[0] == pair[1] or min(pair) < 0:
                raise ConfigError(f"objective 'cooccurrence': {pair} in pairs: give two different class ids")
        self.pairs, self.weight = torch.tensor(pairs), weight

    def check(self, n_classes: int) -> None:
        """Refuse the id of a class that does not exist."""
        if int(self.pairs.max()) >= n_classes:
            raise ConfigError(
                f"objective 'cooccurrence': class {int(self.pairs.max())} in pairs, but there are {n_classes} classes, "
                "from 0"
            )

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Check the ids against the model's classes."""
        assert isinstance(model, Classifier)
        self.check(model.head.out_features)
        self.pairs = self.pairs.to(model.head.weight.device)

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """The weighted penalty, or None if the weight is 0."""
        if not self.weight:
            return None
        p = logits.sigmoid()
        return self.weight * (p[:, self.pairs[:, 0]] * p[:, self.pairs[:, 1]]).sum(dim=1).mean()
