"""Several images of one class in one: class-based composite images (arXiv 2511.03891).

In the paper the test set consists of composites too, which requires the labels to be predicted; here only training
batches are composed, and evaluation uses plain images.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.training.augmentations.images import require_images


@register("augmentation", "class_composite")
class ClassComposite:
    """An image becomes k of the client's images of its class, one above the other, area-resized to its size.

    The images are distinct if the class has at least k; a smaller class uses each of its images before it repeats one.
    They are taken as stored, so put this augmentation first: it discards what earlier ones did. The paper letterboxes
    them into a canvas k times as high; here the shape must stay, so each image is squeezed to 1/k of its height.

    Args:
        k: images per composite.
        p: probability that an image is composed. The paper's value of 1 would never show the model a plain image.
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: k below 1 or p out of range; the data are not images.
    """

    def __init__(self, k: int = 3, p: float = 0.5, *, input_shape: tuple[int, ...]) -> None:
        require_images("class_composite", input_shape)
        in_range("augmentation 'class_composite'", "k", k, 1)
        self.k, self.p = k, in_range("augmentation 'class_composite'", "p", p, 0, 1)

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Images [b, h, w] or [b, c, h, w] -> the same shape; see `fedimb.training.spec.Augmentation`."""
        composed = torch.nonzero(torch.rand(len(x), generator=generator, device=x.device) < self.p).flatten()
        if len(composed) == 0:
            return x
        parts = rows[same_class(labels[composed], labels_of_rows, self.k, generator)]  # [m, k, (c,) h, w]
        images = parts if x.ndim == 4 else parts.unsqueeze(2)
        canvas = images.transpose(1, 2).flatten(2, 3)  # [m, c, k * h, w]
        small = F.interpolate(canvas, size=(x.shape[-2], x.shape[-1]), mode="area")
        return x.index_copy(0, composed, small.view(-1, *x.shape[1:]))


def same_class(labels: Tensor, labels_of_rows: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k positions of rows of each label's class, in random order, distinct if the class has k rows.

    Floyd's sampling for all labels at once, k steps: after step j a uniform subset of the first n - k + j + 1 rows.

    Args:
        labels: [m] int64, each among ``labels_of_rows`` [n] int64.

    Returns:
        Positions [m, k] int64.
    """
    by_class = torch.argsort(labels_of_rows, stable=True)
    counts = torch.bincount(labels_of_rows)
    start = (counts.cumsum(0) - counts)[labels]
    held = counts[labels]
    at = labels.device
    draws = torch.rand(len(labels), k, generator=generator, dtype=torch.float64, device=at)
    chosen = torch.full((len(labels), k), -1, dtype=torch.int64, device=at)
    for step in range(k):
        last = held - k + step
        drawn = (draws[:, step] * (last + 1)).long()
        taken = (chosen == drawn[:, None]).any(1)
        chosen[:, step] = torch.where(taken, last, drawn)
    few = (draws[:, :1] * held[:, None]).long() + torch.arange(
        k, device=at
    )  # fewer than k: all of them, from a random one on
    chosen = torch.where((held < k)[:, None], few % held[:, None], chosen)
    order = torch.rand(len(labels), k, generator=generator, device=at).argsort(1)
    return by_class[start[:, None] + chosen.gather(1, order)]
