"""The input check of signal augmentations."""

from fedimb.errors import ConfigError


def require_signals(name: str, input_shape: tuple[int, ...]) -> None:
    """Raises ConfigError unless one input is (channels, length)."""
    if len(input_shape) != 2:
        raise ConfigError(
            f"augmentation '{name}' changes signals: expected inputs (channels, length), this data has "
            f"{tuple(input_shape)}; remove it from local.augmentation (noise takes any shape)"
        )
