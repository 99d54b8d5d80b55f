"""Building blocks of plain convolutional networks."""

from typing import Literal

from torch import nn

from fedimb.errors import ConfigError

Norm = Literal["group", "batch", "none"]


def groups_of(channels: int) -> int:
    """Groups of GroupNorm: about 8 channels in each, at most 32 groups, a divisor of ``channels`` (ours).

    A fixed 32 (Wu and He, ECCV 2018) would leave narrow nets one or two channels a group, which on a 1 x 1 map
    is nothing but their signs.
    """
    most = min(32, max(1, channels // 8))
    return next(g for g in range(most, 0, -1) if channels % g == 0)


def build_norm(kind: Norm, channels: int, dims: int = 2) -> nn.Module:
    """A normalisation layer over ``channels`` of signals (``dims`` = 1) or images (2).

    GroupNorm is the default of every model here: BatchNorm's running statistics are averaged over clients with
    different labels and then fit none of them (Hsieh et al., ICML 2020).

    Raises:
        ConfigError: unknown kind.
    """
    if kind == "group":
        return nn.GroupNorm(groups_of(channels), channels)
    if kind == "batch":
        return nn.BatchNorm1d(channels) if dims == 1 else nn.BatchNorm2d(channels)
    if kind == "none":
        return nn.Identity()
    raise ConfigError(f"model: norm='{kind}': give group, batch or none")


def check_width(model: str, width: int) -> None:
    """Raises ConfigError unless ``width`` is at least 1."""
    if width < 1:
        raise ConfigError(f"model '{model}': width={width}: give at least 1")


def conv_block(fan_in: int, fan_out: int, kernel: int, norm: Norm, dims: int = 2) -> list[nn.Module]:
    """Convolution, norm and ReLU over signals (``dims`` = 1) or images (2); an odd ``kernel`` keeps the size."""
    conv = nn.Conv1d if dims == 1 else nn.Conv2d
    return [conv(fan_in, fan_out, kernel, padding=kernel // 2), build_norm(norm, fan_out, dims), nn.ReLU()]
