"""Pillow's image operations on batches of tensors, each image with a level of its own.

Images are float32 [b, c, h, w] in [0, 1] with one channel (grey) or three (red, green, blue); levels are [b]. Results
are Pillow's on 8-bit images up to rounding (tests/training/augmentations/test_operations.py). Nothing depends on values
in a way that a GPU would have to wait for.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fedimb.errors import ConfigError

LEVELS = 256
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's mode L


def to_images(x: Tensor) -> Tensor:
    """Grey images [b, h, w] or images [b, c, h, w] -> [b, c, h, w]."""
    return x.unsqueeze(1) if x.ndim == 3 else x


def require_unit_range(name: str, x: Tensor) -> None:
    """Raises ConfigError unless the values are in [0, 1]; looked at on the CPU only, where that costs no waiting."""
    if x.device.type != "cpu" or x.numel() == 0:
        return
    low, high = (float(v) for v in x.aminmax())
    if low < -1e-3 or high > 1 + 1e-3:
        raise ConfigError(
            f"augmentation '{name}' works on grey levels or colours in [0, 1]; these reach from {low:g} to {high:g}: "
            "put noise after it, and let the model normalise images (data.normalize)"
        )


def per_image(levels: Tensor) -> Tensor:
    """Levels [b] -> [b, 1, 1, 1]."""
    return levels.view(-1, 1, 1, 1)


def blend(degenerate: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """degenerate + factor [b] x (x - degenerate), within [0, 1]: 1 is the image itself, 0 the degenerate one."""
    return (degenerate + per_image(factor) * (x - degenerate)).clamp(0, 1)


def grey(x: Tensor) -> Tensor:
    """The luma of colour images, in each of their channels; grey images as they are."""
    if x.shape[1] != 3:
        return x
    return sum(weight * x[:, i : i + 1] for i, weight in enumerate(_LUMA)).expand_as(x)  # type: ignore[union-attr]


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return blend(torch.zeros_like(x), x, factor)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean luma of the image."""
    return blend(grey(x).mean((1, 2, 3), keepdim=True).expand_as(x), x, factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image; nothing changes on grey images."""
    return blend(grey(x), x, factor)


def smooth(x: Tensor) -> Tensor:
    """Pillow's SMOOTH filter, 3 x 3 with 5 in the middle of 13; the outermost pixels stay."""
    if min(x.shape[-2:]) < 3:
        return x
    kernel = x.new_ones(3, 3)
    kernel[1, 1] = 5.0
    kernel = (kernel / 13).expand(x.shape[1], 1, 3, 3)
    inner = F.conv2d(x, kernel, groups=x.shape[1])
    out = x.clone()
    out[..., 1:-1, 1:-1] = inner
    return out


def sharpness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the smoothed image."""
    return blend(smooth(x), x, factor)


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    """Keep the first ``bits`` [b] (0 to 8) of each 8-bit value."""
    step = per_image(2.0 ** (8 - bits))
    return (_levels(x) / step).floor() * step / (LEVELS - 1)


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at or above the threshold [b] in [0, 1]."""
    return torch.where(x >= per_image(threshold), 1 - x, x)


def invert(x: Tensor) -> Tensor:
    """1 - x."""
    return 1 - x


def autocontrast(x: Tensor) -> Tensor:
    """Stretch each channel of each image to [0, 1]; a constant channel stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    varies = high > low
    return torch.where(varies, (x - low) / torch.where(varies, high - low, torch.ones_like(low)), x)


def equalize(x: Tensor) -> Tensor:
    """Level the histogram of each channel of each image, as Pillow does with 256 bins."""
    b, c, h, w = x.shape
    levels = _levels(x).long().flatten(2)
    counts = torch.zeros(b, c, LEVELS, dtype=torch.int64, device=x.device)
    counts = counts.scatter_add(2, levels, torch.ones_like(levels))
    present = counts > 0
    # The count of the brightest level present: positions grow with the level, absent ones are -1.
    position = torch.where(present, torch.arange(LEVELS, device=x.device), -1).argmax(2, keepdim=True)
    step = (h * w - counts.gather(2, position)) // (LEVELS - 1)
    before = counts.cumsum(2) - counts
    table = ((step // 2 + before) // step.clamp_min(1)).clamp(0, LEVELS - 1)
    mapped = table.gather(2, levels).view(b, c, h, w).to(x.dtype) / (LEVELS - 1)
    return torch.where(step.unsqueeze(-1) > 0, mapped, x)


def _levels(x: Tensor) -> Tensor:
    return (x * (LEVELS - 1)).round().clamp(0, LEVELS - 1)


def affine(x: Tensor, matrix: Tensor, fill: float) -> Tensor:
    """Each output pixel from one input pixel (nearest), ``fill`` from outside: Pillow's Image.transform(AFFINE).

    Args:
        matrix: [b, 2, 3]: the output pixel (column, row) shows the input at matrix x (column + .5, row + .5, 1).
    """
    h, w = x.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(h, device=x.device) + 0.5, torch.arange(w, device=x.device) + 0.5, indexing="ij"
    )
    points = torch.stack([columns, rows, torch.ones_like(rows)]).flatten(1)  # [3, h * w]
    source = (matrix @ points).floor().long()  # [b, 2, h * w]
    column, row = source[:, 0], source[:, 1]
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    index = (row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).unsqueeze(1).expand(-1, x.shape[1], -1)
    taken = x.flatten(2).gather(2, index)
    return torch.where(inside.unsqueeze(1), taken, torch.full_like(taken, fill)).reshape(x.shape)


def _matrix(entries: list[Tensor]) -> Tensor:
    return torch.stack(entries, dim=1).view(-1, 2, 3)


def shear_x(level: Tensor) -> Tensor:
    """The matrix [b, 2, 3] that shifts a row by level x its number."""
    zero, one = torch.zeros_like(level), torch.ones_like(level)
    return _matrix([one, level, zero, zero, one, zero])


def shear_y(level: Tensor) -> Tensor:
    """The matrix [b, 2, 3] that shifts a column by level x its number."""
    zero, one = torch.zeros_like(level), torch.ones_like(level)
    return _matrix([one, zero, zero, level, one, zero])


def translate(columns: Tensor, rows: Tensor) -> Tensor:
    """The matrix [b, 2, 3] that moves the image left and up by these whole pixels [b]."""
    zero, one = torch.zeros_like(columns), torch.ones_like(columns)
    return _matrix([one, zero, columns, zero, one, rows])


def rotate(degrees: Tensor, h: int, w: int) -> Tensor:
    """The matrix [b, 2, 3] that turns images [h, w] about their middle, counterclockwise."""
    angle = -degrees * (torch.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    x, y = w / 2, h / 2
    return _matrix([cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y])


def shift_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Colours with their hue moved by ``turn`` [b] of the colour circle, in [-.5, .5]; grey images as they are."""
    if x.shape[1] != 3:
        return x
    red, green, blue = x.unbind(1)
    high, low = x.amax(1), x.amin(1)
    spread = high - low
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    hue = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = torch.remainder(hue / 6 + turn.view(-1, 1, 1), 1.0) * 6
    # Each channel of a colour of this hue, value `high` and spread: Smith 1978, in the form without branches.
    parts = [torch.remainder(hue + n, 6) for n in (5, 3, 1)]
    return torch.stack([high - spread * torch.minimum(p, 4 - p).clamp(0, 1) for p in parts], dim=1)
