"""Building blocks of plain convolutional networks."""

from torch import nn

from fedimb.errors import ConfigError
from fedimb.models.norms import Norm, build_norm


def check_width(model: str, width: int) -> None:
    """Raises ConfigError unless ``width`` is at least 1."""
    if width < 1:
        raise ConfigError(f"model '{model}': width={width}: give at least 1")


def conv_block(fan_in: int, fan_out: int, kernel: int, norm: Norm, dims: int = 2) -> list[nn.Module]:
    """Convolution, norm and ReLU over signals (``dims`` = 1) or images (2); an odd ``kernel`` keeps the size."""
    conv = nn.Conv1d if dims == 1 else nn.Conv2d
    return [conv(fan_in, fan_out, kernel, padding=kernel // 2), build_norm(norm, fan_out, dims), nn.ReLU()]
