"""Contrast-limited adaptive histogram equalisation (CLAHE) of pictures, as they are read.

Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994. The picture is laid out in tiles
x tiles equal tiles, after mirroring it at its right and lower edge where they do not fit. A tile's grey values are
mapped by its cumulative histogram, whose bars are first cut at ``clip`` times the height of a flat one and what was cut
is dealt evenly over all 256; a pixel is mapped by its four nearest tiles, weighted by distance. Cuts, dealing out and
rounding are those of OpenCV's ``createCLAHE``. Of a colour picture the luma (ITU-R 601-2) is equalised, and each
channel moved by as much as the luma moves, which leaves the chroma as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError
from fedimb.registry.arguments import in_range

Pixels = NDArray[np.uint8]
_LEVELS = 256
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Clahe:
    """Settings of CLAHE.

    Attributes:
        clip: height at which histograms are cut, over that of a flat histogram, above 0; OpenCV's clipLimit.
        tiles: tiles along each side, at least 1 and at most the pixels of the shorter side.
    """

    clip: float = 2.0
    tiles: int = 8


def clahe_of(kind: str, given: Mapping[str, Any] | None, size: Sequence[int] | None = None) -> Clahe | None:
    """The settings of a source's ``clahe``; None: pictures stay as they are.

    Args:
        kind: name of the source.
        given: ``{clip: 2.0, tiles: 8}``; what is left out is as in `Clahe`.
        size: [height, width] that pictures are resized to, if they are.

    Raises:
        ConfigError: an unknown name, a value out of range, or more tiles than pixels.
    """
    if given is None:
        return None
    where = f"source '{kind}': clahe"
    if unknown := [name for name in given if name not in ("clip", "tiles")]:
        raise ConfigError(f"{where} has no '{unknown[0]}': give {{clip: 2.0, tiles: 8}}, or null")
    made = Clahe(**given)
    clip = in_range(where, "clip", made.clip, 0, low_allowed=False)
    tiles = in_range(where, "tiles", made.tiles, 1)
    if int(tiles) != tiles:
        raise ConfigError(f"{where}: tiles={tiles}: give a whole number")
    if size is not None:
        _check_tiles(int(tiles), size)
    return Clahe(float(clip), int(tiles))


def _check_tiles(tiles: int, size: Sequence[int]) -> None:
    if min(size) < tiles:
        raise ConfigError(f"clahe: tiles={tiles}, but pictures have {size[0]} x {size[1]} pixels; give fewer tiles")


def equalised(pixels: Pixels, settings: Clahe | None) -> Pixels:
    """A picture [1 or 3, h, w] with its contrast equalised; None: as it is.

    Raises:
        ConfigError: a side has fewer pixels than tiles.
    """
    if settings is None:
        return pixels
    _check_tiles(settings.tiles, pixels.shape[1:])
    if len(pixels) == 1:
        return clahe(pixels[0], settings.clip, settings.tiles)[None]
    luma = np.rint(np.tensordot(_LUMA, pixels, 1)).astype(np.uint8)
    moved = clahe(luma, settings.clip, settings.tiles).astype(np.int16) - luma
    return np.clip(pixels + moved, 0, _LEVELS - 1).astype(np.uint8)


def clahe(grey: Pixels, clip: float, tiles: int) -> Pixels:
    """A grey picture [h, w] equalised; see above."""
    height, width = grey.shape
    more = (-height % tiles, -width % tiles)
    if more != (0, 0):  # as OpenCV: if one side does not fit, a whole tile's row or column is added to the other too
        more = (tiles - height % tiles, tiles - width % tiles)
    filled = np.pad(grey, ((0, more[0]), (0, more[1])), mode="reflect")
    high, wide = filled.shape[0] // tiles, filled.shape[1] // tiles
    maps = _maps(filled, clip, tiles, (high, wide))
    (above, below, down), (left, right, over) = _between(height, high, tiles), _between(width, wide, tiles)
    upper, lower = (
        maps[row[:, None], left[None], grey] * (1 - over) + maps[row[:, None], right[None], grey] * over
        for row in (above, below)
    )  # in this order, as OpenCV: sums of float32 round alike
    found = upper * (1 - down)[:, None] + lower * down[:, None]
    return np.clip(np.rint(found), 0, _LEVELS - 1).astype(np.uint8)


def _maps(filled: Pixels, clip: float, tiles: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """[tiles, tiles, 256] float32: what each tile makes of each grey value, whole numbers."""
    area = size[0] * size[1]
    limit = max(int(clip * area / _LEVELS), 1)
    parts = filled.reshape(tiles, size[0], tiles, size[1]).transpose(0, 2, 1, 3).reshape(tiles, tiles, area)
    maps = np.zeros((tiles, tiles, _LEVELS), np.float32)
    for i in range(tiles):
        for j in range(tiles):
            bars = np.bincount(parts[i, j], minlength=_LEVELS)
            cut = int(np.maximum(bars - limit, 0).sum())
            bars = np.minimum(bars, limit) + cut // _LEVELS
            if rest := cut % _LEVELS:
                step = max(_LEVELS // rest, 1)
                bars[np.arange(rest) * step] += 1
            maps[i, j] = np.clip(np.rint(bars.cumsum().astype(np.float32) * np.float32((_LEVELS - 1) / area)), 0, 255)
    return maps


def _between(pixels: int, size: int, tiles: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Of each pixel along a side: the tiles before and after it, and the weight of that after it."""
    at = np.arange(pixels, dtype=np.float32) * np.float32(1 / size) - np.float32(0.5)
    before = np.floor(at).astype(np.int64)
    return np.maximum(before, 0), np.minimum(before + 1, tiles - 1), (at - before).astype(np.float32)
