"""scikit-learn's digits as if taken by artificial devices: a small benchmark for device shift.

Fixed transforms (colour cast, blur, vignette), as a toy version of FedSSG's devices (arXiv 2604.26324 names no data of
this kind). The device of a row is drawn once, independently of the run's seed, and is the row's site.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.sources.digits import Digits
from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.seeds import Stream, numpy_rng

DEVICES = ("cast", "blur", "vignette", "neutral")
_GAIN, _OFFSET = (0.75, 0.45, 0.2), (0.25, 0.1, 0.5)  # red, green, blue at strength 1: a violet ground
_EDGE = 0.9  # fraction of its light that a corner loses at strength 1
_FORMAT = 1  # raised when a transform changes

Images = NDArray[np.float64]


@register("source", "digits_devices")
@dataclass(frozen=True)
class DigitsDevices:
    """The digits as pictures of several devices with different colours; the sites are the devices.

    x [1797, 3, 8, 8] uint8, scale 1/255; sites are devices, each with about one row in ``devices``.

    ``cast``: per channel v -> v * gain + offset. ``blur``: each pixel the mean of its 3 x 3 neighbourhood, weights
    [1 2 1] both ways, borders repeated. ``vignette``: light falls with the square of the distance from the middle.
    ``neutral``: the digit as it is.

    Args:
        devices: number of `DEVICES` to use, counted from the first, 1 to 4.
        strength: 0: all devices are neutral, 1: as described; values in between mix both linearly.
        seed: of the devices, independent of the run's seed: every run of a sweep sees the same images.
    """

    devices: int = 3
    strength: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.devices <= len(DEVICES):
            raise ConfigError(f"source 'digits_devices': devices={self.devices}: give 1 to {len(DEVICES)}")
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"source 'digits_devices': strength={self.strength}: give a number from 0 to 1")
        if self.seed < 0:
            raise ConfigError(f"source 'digits_devices': seed={self.seed}: give at least 0")

    def fingerprint(self) -> str:
        """The digits' content hash and the arguments: they determine every value."""
        return f"digits_devices-{_FORMAT}-{self.devices}-{float(self.strength)}-{self.seed}-{Digits().fingerprint()}"

    def load(self) -> SourceData:
        """Read the digits, draw the devices, apply each device's transform. Raises DataError as `Digits.load`."""
        plain = Digits().load()
        site = numpy_rng(self.seed, Stream.SOURCE).integers(self.devices, size=len(plain.y))
        images = np.repeat(plain.x / 16.0, 3, axis=1)
        for device, name in enumerate(DEVICES[: self.devices]):
            rows = site == device
            images[rows] += self.strength * (apply_device(images[rows], name) - images[rows])
        x = np.rint(images * 255).astype(np.uint8)
        return SourceData(
            x,
            plain.y,
            plain.class_names,
            scale=1 / 255,
            sites=site.astype(np.int64),
            site_names=DEVICES[: self.devices],
        )


def apply_device(images: Images, device: str) -> Images:
    """Images [n, 3, h, w] float64 of 0 to 1 as if taken by ``device`` of `DEVICES`; same shape and range."""
    if device == "cast":
        return images * np.reshape(_GAIN, (1, 3, 1, 1)) + np.reshape(_OFFSET, (1, 3, 1, 1))
    if device == "blur":
        return _blurred(_blurred(images, 2), 3)
    if device == "vignette":
        height, width = images.shape[-2:]
        down, across = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
        return images * (1 - _EDGE * (down**2 + across**2) / 2)
    return images.copy()


def _blurred(images: Images, axis: int) -> Images:
    widths = [(1, 1) if a == axis else (0, 0) for a in range(4)]
    padded = np.pad(images, widths, mode="edge")
    size = images.shape[axis]
    before, here, after = (np.take(padded, np.arange(size) + step, axis=axis) for step in range(3))
    blurred: Images = (before + 2 * here + after) / 4
    return blurred
