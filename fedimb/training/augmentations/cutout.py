"""Cutout: a square of each image is blanked (DeVries and Taylor, arXiv 1708.04552)."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.training.augmentations.images import require_images


@register("augmentation", "cutout", tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse"))
class Cutout:
    """A square around a pixel drawn evenly is set to ``fill``; what reaches beyond the image is lost, as in the paper.

    Args:
        size: side of the square in pixels; null: half of the shorter side, as the paper's 16 on CIFAR-10 (8 on
            CIFAR-100).
        fill: value, in the units of the inputs. The paper blanks after normalising: 0 there is the mean.
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: no size, or one larger than the image; the data are not images.
    """

    def __init__(self, size: int | None = None, fill: float = 0.0, *, input_shape: tuple[int, ...]) -> None:
        require_images("cutout", input_shape)
        side = min(input_shape[-2:])
        self.size = max(1, side // 2) if size is None else size
        in_range("augmentation 'cutout'", "size", self.size, 1, side)
        self.fill = in_range("augmentation 'cutout'", "fill", fill, float("-inf"))

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Images [b, h, w] or [b, c, h, w] -> the same shape; see `fedimb.training.spec.Augmentation`."""
        h, w = x.shape[-2:]
        top, left = (
            torch.randint(side, (len(x), 1), generator=generator, device=x.device) - self.size // 2 for side in (h, w)
        )
        row, column = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
        down, across = (row >= top) & (row < top + self.size), (column >= left) & (column < left + self.size)
        blank = (down.unsqueeze(2) & across.unsqueeze(1)).view(len(x), *[1] * (x.ndim - 3), h, w)
        return torch.where(blank, torch.full_like(x, self.fill), x)
