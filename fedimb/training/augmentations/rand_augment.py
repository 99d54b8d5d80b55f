"""RandAugment: operations drawn evenly, all of one magnitude.

Cubuk et al., "RandAugment", NeurIPS 2020.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.training.augmentations import policies
from fedimb.training.augmentations.images import require_images
from fedimb.training.augmentations.operations import require_unit_range, to_images

_USED = [name for name in policies.NAMES if name != "invert"]  # the paper's fourteen


@register("augmentation", "rand_augment", tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse"))
class RandAugment:
    """``n`` of fourteen operations for each image, one after another, all of magnitude ``m``.

    Images in [0, 1], grey or in three colours: let the model normalise (``data.normalize``). Some operations change
    what a digit or a tissue is; they were chosen for photographs.

    Args:
        n: operations per image, at least 1.
        m: magnitude, a whole number from 0 (nothing) to 30.
        fill: value of pixels that move in, in [0, 1]; the paper's grey is .5.
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: a value out of range; the data are not images.
    """

    def __init__(self, n: int = 2, m: int = 9, fill: float = 0.5, *, input_shape: tuple[int, ...]) -> None:
        require_images("rand_augment", input_shape)
        where = "augmentation 'rand_augment'"
        in_range(where, "n", n, 1)
        in_range(where, "m", m, 0, 30)
        self.n, self.m, self.fill = n, m, in_range(where, "fill", fill, 0, 1)

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Images [b, h, w] or [b, c, h, w] -> the same shape; see `fedimb.training.spec.Augmentation`."""
        require_unit_range("rand_augment", x)
        images = to_images(x)
        table = policies.magnitudes(31, *images.shape[-2:])
        codes = x.new_tensor(policies.codes(_USED), dtype=torch.int64)
        levels = x.new_tensor([table.get(name, [0.0] * 31)[self.m] for name in _USED])
        for _ in range(self.n):
            drawn = torch.randint(len(_USED), (len(x),), generator=generator, device=x.device)
            level = policies.signed(levels[drawn], codes[drawn], generator)
            images = policies.apply(images, codes[drawn], level, self.fill)
        return images.reshape(x.shape)
