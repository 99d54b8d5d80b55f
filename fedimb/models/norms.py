"""Normalisation layers by name."""

from typing import Literal

from torch import nn

from fedimb.errors import ConfigError

Norm = Literal["group", "batch", "none"]


def groups_of(channels: int) -> int:
    """Groups of GroupNorm: about 8 channels in each, at most 32 groups, a divisor of ``channels``.

    A fixed 32 (Wu and He, ECCV 2018) would leave narrow models one or two channels per group, of which only the signs
    remain on a 1 x 1 map.
    """
    most = min(32, max(1, channels // 8))
    return next(g for g in range(most, 0, -1) if channels % g == 0)


def build_norm(kind: Norm, channels: int, dims: int = 2) -> nn.Module:
    """A normalisation layer over ``channels`` of signals (``dims`` = 1) or images (2).

    GroupNorm is the default of every model here: BatchNorm's running statistics are averaged over clients with
    different labels and then match none of them (Hsieh et al., ICML 2020).

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
