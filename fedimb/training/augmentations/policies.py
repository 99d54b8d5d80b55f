"""One of sixteen operations per image, at a level of its own: what RandAugment and AutoAugment are made of."""

import torch
from torch import Tensor

from fedimb.training.augmentations import operations as op

NAMES = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "color", "contrast", "sharpness"),
    *("posterize", "solarize", "autocontrast", "equalize", "invert"),
)
"""The operations by number: those that move pixels, blends, and those on values."""
SIGNED = frozenset({*NAMES[1:6], *NAMES[6:10]})
"""Operations whose level is as often negative."""
_CODE = {name: code for code, name in enumerate(NAMES)}


def magnitudes(bins: int, high: int, wide: int) -> dict[str, list[float]]:
    """Levels of each operation that has any, from weakest to strongest, in ``bins`` steps.

    Cubuk et al., CVPR 2019, table 6: shear to .3, translation to 150 of 331 pixels, rotation to 30 degrees, blends to 1
    plus or minus .9, posterize from 8 to 4 bits, solarize from 1 to 0.
    """
    share = [i / (bins - 1) for i in range(bins)]
    levels = {
        "shear_x": [0.3 * s for s in share],
        "shear_y": [0.3 * s for s in share],
        "translate_x": [float(int(150 / 331 * wide * s)) for s in share],
        "translate_y": [float(int(150 / 331 * high * s)) for s in share],
        "rotate": [30.0 * s for s in share],
        "posterize": [float(8 - round(4 * s)) for s in share],
        "solarize": [1.0 - s for s in share],
    }
    return levels | {name: [0.9 * s for s in share] for name in NAMES[6:10]}


def codes(names: list[str]) -> list[int]:
    """Numbers of operations by name."""
    return [_CODE[name] for name in names]


def apply(x: Tensor, code: Tensor, level: Tensor, fill: float) -> Tensor:
    """Apply operation ``code`` [b] at ``level`` [b], already signed, to images [b, c, h, w].

    Every kind of operation is computed for the whole batch and one is kept for each image: this costs arithmetic and
    spares a GPU from waiting for which images are concerned.
    """

    def chosen(name: str) -> Tensor:
        return op.per_image(code == _CODE[name])

    h, w = x.shape[-2:]
    zero = torch.zeros_like(level)
    moved = op.translate(zero, zero)
    for name, matrix in (
        ("shear_x", op.shear_x(level)),
        ("shear_y", op.shear_y(level)),
        ("translate_x", op.translate(level, zero)),
        ("translate_y", op.translate(zero, level)),
        ("rotate", op.rotate(level, h, w)),
    ):
        moved = torch.where((code == _CODE[name]).view(-1, 1, 1), matrix, moved)
    out = op.affine(x, moved, fill)
    degenerate = torch.zeros_like(x)
    degenerate = torch.where(chosen("color"), op.grey(x), degenerate)
    degenerate = torch.where(chosen("contrast"), op.grey(x).mean((1, 2, 3), keepdim=True), degenerate)
    degenerate = torch.where(chosen("sharpness"), op.smooth(x), degenerate)
    blends = op.per_image((code >= _CODE["brightness"]) & (code <= _CODE["sharpness"]))
    out = torch.where(blends, op.blend(degenerate, x, 1 + level), out)
    out = torch.where(chosen("posterize"), op.posterize(x, level.clamp(0, 8)), out)
    out = torch.where(chosen("solarize"), op.solarize(x, level), out)
    out = torch.where(chosen("autocontrast"), op.autocontrast(x), out)
    out = torch.where(chosen("equalize"), op.equalize(x), out)
    return torch.where(chosen("invert"), op.invert(x), out)


def signed(level: Tensor, code: Tensor, generator: torch.Generator) -> Tensor:
    """Levels [b] with the sign drawn where the operation has one."""
    negative = torch.rand(len(level), generator=generator, device=level.device) < 0.5
    has_sign = torch.zeros_like(negative)
    for name in SIGNED:
        has_sign = has_sign | (code == _CODE[name])
    return torch.where(negative & has_sign, -level, level)
