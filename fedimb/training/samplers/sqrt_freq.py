"""Between the data's frequencies and balance: a class is drawn in proportion to the square root of its number of rows.

Square-root sampling (Mahajan et al., ECCV 2018): a row has weight 1 / sqrt(n_c), so its class has sqrt(n_c);
Kang et al., ICLR 2020, eq. 1 with q = 1/2.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.training.samplers.draw import draw_by_class


@register("sampler", "sqrt_freq", resamples=True)
class SquareRootFrequency:
    """A class with probability proportional to sqrt(n_c), then one of its rows uniformly, with replacement.

    Example:
        >>> import torch
        >>> labels = torch.tensor([0] * 900 + [1] * 100)
        >>> drawn = SquareRootFrequency().epoch(labels, torch.Generator().manual_seed(0))
        >>> labels[drawn].bincount().tolist()
        [758, 242]
    """

    def epoch(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Labels [n] int64 -> positions [n] int64."""
        return draw_by_class(labels, torch.sqrt, generator)
