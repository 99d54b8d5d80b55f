"""What a device's images look like on average, and how to make other images look like that.

The cheap route of FedSSG's reconstruction when the server's rows lack a device: a site sends a descriptor of a few
numbers per channel, averaged over at least 32 of its images, and samples are restyled to it. Two kinds of descriptor:
mean and standard deviation per channel (after AdaIN, Huang and Belongie, ICCV 2017), and low-frequency Fourier
amplitude (FDA, Yang and Soatto, CVPR 2020). Images only. Unlike the papers: it works in the channels given, not in LAB;
a descriptor is an average of the images' own statistics; and it maps from one population's descriptor to another's,
which keeps the differences between images. This undoes a colour cast exactly; blur and vignette are not colour and stay
as they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedimb.errors import ConfigError, DataError

LEAST_ROWS = 32
_FLAT = 1e-6  # a channel with a standard deviation below this is constant


@dataclass(frozen=True, eq=False)
class Style:
    """The colour statistics of a device.

    Attributes:
        mean: [c] float64, mean of the images' channel means.
        std: [c] float64, root of the mean of the images' own channel variances.
        rows: number of images averaged.
    """

    mean: Tensor
    std: Tensor
    rows: int


def describe_style(x: Tensor, least: int = LEAST_ROWS) -> Style:
    """The style of one device's images x [n, c, h, w].

    Raises:
        DataError: not images, not finite, or fewer than ``least``: a mean of few images reveals each of them.
    """
    _check_images(x)
    if len(x) < least:
        raise DataError(
            f"a style descriptor needs {least} images of the device, but there are {len(x)}: send none for this device"
        )
    values = x.double()
    if not torch.isfinite(values).all():
        raise DataError("images hold NaN or infinite values; fix them before describing their style")
    within = values.var(dim=(2, 3), unbiased=False).mean(dim=0)
    return Style(values.mean(dim=(0, 2, 3)), within.sqrt(), len(x))


def descriptor_bytes(channels: int) -> int:
    """Size of one device's mean and std: two float64 per channel."""
    return 16 * channels


def recolour(x: Tensor, to: Style, source: Style | None = None, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Give images the colour of ``to``: per channel (x - m) / s * to.std + to.mean, clipped to [low, high].

    Args:
        x: [n, c, h, w].
        to: the target style.
        source: the style of the images as a population; m and s are its mean and std. None: each image's own (AdaIN),
            which makes all images equally bright.

    Returns:
        Same shape and dtype. A constant channel is only shifted.

    Raises:
        DataError: not images, or another number of channels than the style.
    """
    _check_images(x)
    for style in (to, source):
        if style is not None and len(style.mean) != x.shape[1]:
            raise DataError(
                f"images have {x.shape[1]} channels, the style {len(style.mean)}; describe images of the same kind"
            )
    if len(x) == 0:
        return x.clone()
    values = x.double()
    if source is None:
        mean = values.mean(dim=(2, 3), keepdim=True)
        std = values.var(dim=(2, 3), unbiased=False, keepdim=True).sqrt()
    else:
        mean, std = source.mean.view(1, -1, 1, 1), source.std.view(1, -1, 1, 1)
    wanted = to.std.view(1, -1, 1, 1)
    gain = torch.where(std > _FLAT, wanted / std.clamp(min=_FLAT), 1.0)
    return ((values - mean) * gain + to.mean.view(1, -1, 1, 1)).clamp(low, high).to(x.dtype)


def amplitude(x: Tensor, beta: float = 0.01, least: int = LEAST_ROWS) -> Tensor:
    """Mean low-frequency amplitude of images x [n, c, h, w]: [c, 2b+1, 2b+1] float64, b = floor(beta min(h, w)).

    The centre is the zero frequency. On small images beta 0.01 leaves only that: the mean.

    Raises:
        ConfigError: beta outside [0, .5).
        DataError: see `describe_style`.
    """
    _check_images(x)
    if len(x) < least:
        raise DataError(
            f"an amplitude needs {least} images of the device, but there are {len(x)}: send none for this device"
        )
    rows, columns = _window(x, beta)
    spectrum = torch.fft.fftshift(torch.fft.fft2(x.double()), dim=(-2, -1))
    return spectrum.abs()[..., rows, columns].mean(dim=0)


def swap_amplitude(x: Tensor, patch: Tensor, beta: float = 0.01, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Replace the low-frequency amplitude of images x [n, c, h, w] by ``patch`` (from `amplitude`), keeping the phase.

    Returns:
        Same shape and dtype, clipped to [low, high].

    Raises:
        ConfigError: beta outside [0, .5).
        DataError: a patch whose size does not fit these images and beta.
    """
    _check_images(x)
    rows, columns = _window(x, beta)
    spectrum = torch.fft.fftshift(torch.fft.fft2(x.double()), dim=(-2, -1))
    size, phase = spectrum.abs(), spectrum.angle()
    if patch.shape != size.shape[1:2] + size[0, 0, rows, columns].shape:
        raise DataError(f"amplitude patch {list(patch.shape)} does not fit images {list(x.shape[1:])} at beta={beta}")
    size[..., rows, columns] = patch.double()
    back = torch.fft.ifft2(torch.fft.ifftshift(torch.polar(size, phase), dim=(-2, -1))).real
    return back.clamp(low, high).to(x.dtype)


def _window(x: Tensor, beta: float) -> tuple[slice, slice]:
    if not 0 <= beta < 0.5:
        raise ConfigError(f"beta={beta}: give the half width of the window as a share of the image, 0 to below 0.5")
    height, width = x.shape[-2:]
    half = min(int(beta * min(height, width) + 1e-9), (min(height, width) - 1) // 2)
    return slice(height // 2 - half, height // 2 + half + 1), slice(width // 2 - half, width // 2 + half + 1)


def _check_images(x: Tensor) -> None:
    if x.dim() != 4:
        raise DataError(f"style needs images [n, c, h, w]; got {list(x.shape)}")
