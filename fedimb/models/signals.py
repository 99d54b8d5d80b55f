"""Input checks of signal models."""

from collections.abc import Sequence

from fedimb.errors import ConfigError


def signal_shape(model: str, shape: Sequence[int]) -> tuple[int, int]:
    """(channels, length) of one row. ConfigError if the data are not signals."""
    if len(shape) != 2:
        raise ConfigError(
            f"model '{model}' reads signals: expected an input shape (channels, length), this data has "
            f"{tuple(shape)}; use mlp for a table, cnn4conv for images"
        )
    return shape[0], shape[1]
