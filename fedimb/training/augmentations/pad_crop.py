"""Images shifted by a few pixels: zero padding, then a random crop of the original size (He et al., CVPR 2016, 4.2)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.training.augmentations.images import require_images


@register("augmentation", "pad_crop", tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse"))
class PadCrop:
    """Each image shifted by up to ``pad`` pixels in each direction, zeros moving in.

    Args:
        pad: pixels of zeros on every side; 0 changes nothing.
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: a negative pad; the data are not images.
    """

    def __init__(self, pad: int = 4, *, input_shape: tuple[int, ...]) -> None:
        require_images("pad_crop", input_shape)
        in_range("augmentation 'pad_crop'", "pad", pad, 0)
        self.pad = pad

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Images [b, h, w] or [b, c, h, w] -> the same shape; see `fedimb.training.spec.Augmentation`."""
        top, left = torch.randint(2 * self.pad + 1, (2, len(x), 1), generator=generator, device=x.device)
        down = top + torch.arange(x.shape[-2], device=x.device)  # [b, h]: rows of the padded image that stay
        right = left + torch.arange(x.shape[-1], device=x.device)  # [b, w]
        padded = F.pad(x, (self.pad,) * 4)
        images = padded if x.ndim == 4 else padded.unsqueeze(1)
        image = torch.arange(len(x), device=x.device)[:, None, None]
        crops = images.permute(0, 2, 3, 1)[image, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)
        return crops.contiguous().view(x.shape)
