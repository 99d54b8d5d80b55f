"""Every class that the client holds is equally likely.

Class-balanced sampling of Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition",
ICLR 2020, eq. 1 with q = 0. Only the classes *present* are balanced: a class that the client lacks cannot be drawn.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.training.samplers.draw import draw_by_class


@register("sampler", "class_balanced", resamples=True)
class ClassBalanced:
    """A class uniformly, then one of its rows uniformly, with replacement.

    Example:
        >>> import torch
        >>> labels = torch.tensor([0] * 900 + [1] * 100)
        >>> drawn = ClassBalanced().epoch(labels, torch.Generator().manual_seed(0))
        >>> labels[drawn].bincount().tolist()
        [500, 500]
    """

    def epoch(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Labels [n] int64 -> positions [n] int64."""
        return draw_by_class(labels, torch.ones_like, generator)
