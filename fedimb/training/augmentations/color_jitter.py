"""Random brightness, contrast, saturation and hue, as in torchvision's ColorJitter."""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.training.augmentations import operations as op
from fedimb.training.augmentations.images import require_images


@register("augmentation", "color_jitter", tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse"))
class ColorJitter:
    """Each image's brightness, contrast and saturation times a factor of its own, its hue turned, in a random order.

    Factors are uniform in [max(0, 1 - a), 1 + a]; the order is drawn once for a batch. Images in [0, 1], grey (which
    have no saturation or hue) or in three colours.

    Args:
        brightness, contrast, saturation: a, at least 0.
        hue: largest turn, a share of the colour circle in [0, .5].
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: a value out of range; the data are not images.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.0,
        *,
        input_shape: tuple[int, ...],
    ) -> None:
        require_images("color_jitter", input_shape)
        where = "augmentation 'color_jitter'"
        self.brightness = in_range(where, "brightness", brightness, 0)
        self.contrast = in_range(where, "contrast", contrast, 0)
        self.saturation = in_range(where, "saturation", saturation, 0)
        self.hue = in_range(where, "hue", hue, 0, 0.5)

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Images [b, h, w] or [b, c, h, w] -> the same shape; see `fedimb.training.spec.Augmentation`."""
        op.require_unit_range("color_jitter", x)
        images = op.to_images(x)
        draws = torch.rand(4, len(x), generator=generator, device=x.device)
        kinds = (
            (op.brightness, *_bounds(self.brightness)),
            (op.contrast, *_bounds(self.contrast)),
            (op.saturation, *_bounds(self.saturation)),
            (op.shift_hue, -self.hue, self.hue),
        )
        order = torch.rand(4, generator=generator, device=x.device).argsort()
        for step in range(4):
            out = images
            for i, (change, low, high) in enumerate(kinds):
                if low < high:
                    out = torch.where(order[step] == i, change(images, low + (high - low) * draws[i]), out)
            images = out
        return images.reshape(x.shape)


def _bounds(spread: float) -> tuple[float, float]:
    return max(0.0, 1 - spread), 1 + spread
