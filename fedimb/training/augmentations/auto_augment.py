"""AutoAugment with the policy that its authors found on CIFAR-10.

Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019, appendix, table 7.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.training.augmentations import policies
from fedimb.training.augmentations.images import require_images
from fedimb.training.augmentations.operations import require_unit_range, to_images

POLICY = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)
"""Twenty-five pairs of (operation, probability, magnitude in ten steps)."""
BINS = 10


@register("augmentation", "auto_augment", tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse"))
class AutoAugment:
    """One of 25 pairs of operations for each image, each with its probability and magnitude (CIFAR-10's policy).

    Images in [0, 1], grey or in three colours: let the model normalise (``data.normalize``).

    Args:
        fill: value of pixels that move in, in [0, 1]; the paper's grey is .5.
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: fill out of range; the data are not images.
    """

    def __init__(self, fill: float = 0.5, *, input_shape: tuple[int, ...]) -> None:
        require_images("auto_augment", input_shape)
        self.fill = in_range("augmentation 'auto_augment'", "fill", fill, 0, 1)

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Images [b, h, w] or [b, c, h, w] -> the same shape; see `fedimb.training.spec.Augmentation`."""
        require_unit_range("auto_augment", x)
        images = to_images(x)
        table = policies.magnitudes(BINS, *images.shape[-2:])
        drawn = torch.randint(len(POLICY), (len(x),), generator=generator, device=x.device)
        for step in (0, 1):
            parts = [pair[step] for pair in POLICY]
            code = x.new_tensor(policies.codes([name for name, _, _ in parts]), dtype=torch.int64)[drawn]
            level = x.new_tensor([table.get(name, [0.0] * BINS)[at] for name, _, at in parts])[drawn]
            often = x.new_tensor([p for _, p, _ in parts])[drawn]
            happens = torch.rand(len(x), generator=generator, device=x.device) < often
            level = policies.signed(level, code, generator)
            images = policies.apply(images, torch.where(happens, code, 0), level, self.fill)
        return images.reshape(x.shape)
