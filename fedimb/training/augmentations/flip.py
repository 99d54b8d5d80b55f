"""Random horizontal flips."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.training.augmentations.images import require_images


@register("augmentation", "flip", tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse"))
class Flip:
    """Horizontal flip of each image with probability p. Not for digits and other images with a handedness.

    Args:
        p: probability in [0, 1].
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: p out of range; the data are not images.
    """

    def __init__(self, p: float = 0.5, *, input_shape: tuple[int, ...]) -> None:
        require_images("flip", input_shape)
        self.p = in_range("augmentation 'flip'", "p", p, 0, 1)

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Images [b, h, w] or [b, c, h, w] -> the same shape; see `fedimb.training.spec.Augmentation`."""
        flipped = torch.rand(len(x), generator=generator, device=x.device) < self.p
        return torch.where(flipped.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
