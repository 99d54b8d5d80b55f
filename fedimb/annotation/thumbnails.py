"""Rows of an image store as small PNG files for people to look at."""

import io
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import DataError

SMALLEST, LARGEST = 256, 1024  # pixels of the longer side


def check_pictures(shape: tuple[int, ...]) -> None:
    """Refuse rows that are not pictures [1 or 3, H, W], and a machine without Pillow.

    Raises:
        DataError: why, and the remedy.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(
            f"a worklist shows pictures [1 or 3 channels, H, W] and tables [F], not rows of shape {list(shape)}; "
            "use oracle.name=simulated or another source"
        )
    if find_spec("PIL") is None:
        raise DataError("a worklist of pictures needs Pillow: pip install 'pillow>=10'")


def pixels(x: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    """[H, W] or [H, W, 3] uint8 of a row [1 or 3, H, W].

    Values in 0..1 after scaling are shown as they are, so that pictures can be compared; others are stretched from
    their minimum to their maximum.
    """
    values = np.asarray(x, dtype=np.float64) * scale
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1 + 1e-6:
        values = (values - low) / (high - low) if high > low else np.zeros_like(values)
    shown = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return shown[0] if len(shown) == 1 else np.ascontiguousarray(shown.transpose(1, 2, 0))


def png(x: NDArray[np.generic], scale: float) -> bytes:
    """A PNG of a row, its longer side 256 to 1024 pixels; small pictures are enlarged by whole factors, unsmoothed."""
    from PIL import Image

    picture = Image.fromarray(pixels(x, scale))
    longer = max(picture.size)
    if longer < SMALLEST:
        times = -(-SMALLEST // longer)
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    elif longer > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
