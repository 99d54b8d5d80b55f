"""Bytes of an image file to uint8 [channels, height, width] in [0, 255]."""

import io
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]
CHANNELS = {"RGB": 3, "L": 1}
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_ORIENTATION = 0x0112  # Exif


def check_format(kind: str, size: tuple[int, int] | None, mode: str = "L") -> None:
    """Raise ConfigError unless ``size`` is None or [height, width] above 0 and ``mode`` RGB or L."""
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ConfigError(f"source '{kind}': size={list(size)}: give [height, width] in pixels, each at least 1")
    if mode not in CHANNELS:
        raise ConfigError(f"source '{kind}': mode={mode!r}: give RGB or L (grey)")


def decode(data: bytes, mode: str, size: tuple[int, int] | None) -> Pixels:
    """One image file as ``mode`` RGB or L, turned upright by its Exif entry, of ``size`` [height, width] if given.

    Grey becomes three equal channels, colour becomes its luma (ITU-R 601-2). Anything that would silently change values
    is refused: 16-bit grey would be clipped, transparency hides colours, CMYK depends on a profile.

    Raises:
        DataError: not an image, truncated, of another mode, with transparency, or of several frames.
    """
    image_module = load_pillow()
    try:
        with image_module.open(io.BytesIO(data)) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise DataError(f"has {image.n_frames} frames: give one image per file")
            image.load()
            if image.getexif().get(_ORIENTATION, 1) != 1:
                from PIL import ImageOps

                image = ImageOps.exif_transpose(image)
            return _pixels(_resized(_converted(image, mode), size))
    except DataError:
        raise
    except Exception as error:  # each format's reader raises its own kinds on damaged bytes
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, image_module.UnidentifiedImageError):
            reason = "not an image format that Pillow knows"
        raise DataError(f"cannot be decoded ({reason})") from error


def turned_by(data: bytes) -> int:
    """How an image file's Exif entry says that it is shown: 1 (as stored) to 8; 5 to 8 exchange width and height.

    Raises:
        ConfigError: Pillow is not installed.
    """
    image_module = load_pillow()
    with image_module.open(io.BytesIO(data)) as image:
        return int(image.getexif().get(_ORIENTATION, 1))


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Grey [1, h, w] to [1, *size], as `decode` does it."""
    return _pixels(_resized(load_pillow().fromarray(pixels[0]), size))


def load_pillow() -> ModuleType:
    """PIL.Image. Raises ConfigError when Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError("reading images needs Pillow: pip install pillow") from error
    return Image


def _converted(image: Any, mode: str) -> Any:
    if image.mode == mode:
        if "transparency" not in image.info:
            return image
    elif image.mode not in ("1", "L", "P", "RGB", *_ALPHA):
        raise DataError(f"is of mode {image.mode}: save it as 8-bit grey or RGB")
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            raise DataError("has transparent pixels: save it without transparency")
    return image.convert(mode)


def _resized(image: "Image", size: tuple[int, int] | None) -> "Image":
    if size is None or (image.height, image.width) == tuple(size):
        return image
    sampling = load_pillow().Resampling
    # For integer factors the mean of each block, else a triangle filter as wide as an output pixel, so shrinking does
    # not alias.
    whole = image.height % size[0] == 0 and image.width % size[1] == 0
    return image.resize((size[1], size[0]), sampling.BOX if whole else sampling.BILINEAR)


def _pixels(image: object) -> Pixels:
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
