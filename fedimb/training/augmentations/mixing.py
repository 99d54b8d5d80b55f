"""Two images of a client's batch in one, and the loss of both labels: mixup and CutMix.

Zhang et al., "mixup", ICLR 2018; Yun et al., "CutMix", ICCV 2019. Both mix a batch with itself in another order, so
rows never leave the client.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.training.augmentations.images import require_images
from fedimb.training.spec import Mixed

BOTH = ("multiclass", "multilabel")


def draw_share(alpha: float, x: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of Beta(alpha, alpha), a tensor without dimensions on the device of x, as a ratio of gamma draws."""
    gammas = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64, device=x.device), generator=generator)
    total = gammas.sum()
    even = torch.full_like(total, 0.5)  # both underflowed, at a tiny alpha
    return torch.where(total > 0, gammas[0] / torch.where(total > 0, total, even), even).to(x.dtype)


def draw_partners(x: Tensor, generator: torch.Generator) -> Tensor:
    """Positions [b] int64 of the rows that the rows of a batch are mixed with: the batch in random order."""
    return torch.rand(len(x), generator=generator, device=x.device).argsort()


@register("augmentation", "mixup", tasks=BOTH, mixes=True, unknown_labels=("cells", "coarse"))
class Mixup:
    """Each row becomes share x itself + (1 - share) x another row of the batch; share ~ Beta(alpha, alpha).

    The loss is mixed likewise. One share for each batch. It must be the last augmentation.

    Args:
        alpha: above 0; the paper's for CIFAR is 1.
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: alpha not above 0; the data are not images.
    """

    def __init__(self, alpha: float = 1.0, *, input_shape: tuple[int, ...]) -> None:
        require_images("mixup", input_shape)
        self.alpha = in_range("augmentation 'mixup'", "alpha", alpha, 0, low_allowed=False)

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Mixed:
        """Images [b, h, w] or [b, c, h, w] -> mixed images of the same shape, partners and the share."""
        share, partners = draw_share(self.alpha, x, generator), draw_partners(x, generator)
        return Mixed(share * x + (1 - share) * x[partners], partners, share)


@register("augmentation", "cutmix", tasks=BOTH, mixes=True, unknown_labels=("cells", "coarse"))
class CutMix:
    """A rectangle of each image comes from another image of the batch; its area is about 1 - share, Beta(alpha, alpha).

    The rectangle is the same in the whole batch, around a pixel drawn evenly, and cut at the border; the loss is mixed
    by the area that is left. It must be the last augmentation.

    Args:
        alpha: above 0; the paper's is 1.
        p: probability that a batch is mixed; the paper's for CIFAR is .5.
        input_shape: of one input (given by fedimb).

    Raises:
        ConfigError: a value out of range; the data are not images.
    """

    def __init__(self, alpha: float = 1.0, p: float = 1.0, *, input_shape: tuple[int, ...]) -> None:
        require_images("cutmix", input_shape)
        self.alpha = in_range("augmentation 'cutmix'", "alpha", alpha, 0, low_allowed=False)
        self.p = in_range("augmentation 'cutmix'", "p", p, 0, 1)

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Mixed:
        """Images [b, h, w] or [b, c, h, w] -> mixed images of the same shape, partners and the share."""
        share, partners = draw_share(self.alpha, x, generator), draw_partners(x, generator)
        happens = torch.rand((), generator=generator, device=x.device) < self.p
        inside = []
        for side in x.shape[-2:]:
            width = (side * (1 - share).sqrt()).floor()
            middle = torch.randint(side, (), generator=generator, device=x.device)
            at = torch.arange(side, device=x.device)
            first = middle - (width / 2).floor()
            inside.append((at >= first) & (at < first + width))
        cut = inside[0][:, None] & inside[1][None, :] & happens  # [h, w]
        left = 1 - cut.to(x.dtype).mean()
        return Mixed(torch.where(cut, x[partners], x), partners, left)
