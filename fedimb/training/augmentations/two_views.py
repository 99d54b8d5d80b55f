"""Two views of every batch, for methods that compare a row with itself."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.training.spec import Augmentation, Mixed


class TwoViews:
    """An augmentation that returns one view of a batch and keeps a second; built by a method's client side.

    Both are drawn from the rows as they are: the first by ``first``, the second by ``second``, which may be the same
    augmentations.

    Args:
        first, second: applied in order; none leaves the rows as they are. Neither may mix rows.

    Attributes:
        other: the second view [b, *shape] of the batch augmented last.
    """

    def __init__(self, first: Sequence[Augmentation], second: Sequence[Augmentation]) -> None:
        self.first, self.second = tuple(first), tuple(second)
        self.other = torch.zeros(0)

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Batch x [b, *shape] -> its first view; see `fedimb.training.spec.Augmentation`.

        Raises:
            ConfigError: an augmentation that mixes rows, whose labels a comparison would not know.
        """
        views = []
        for parts in (self.first, self.second):
            view = x
            for part in parts:
                made = part(view, labels, rows, labels_of_rows, generator)
                if isinstance(made, Mixed):
                    raise ConfigError(
                        f"{type(part).__name__} mixes rows, and this method compares two views of one row; leave it out"
                    )
                view = made
            views.append(view)
        self.other = views[1]
        return views[0]
