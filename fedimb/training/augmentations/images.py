"""The input check of image augmentations."""

from fedimb.errors import ConfigError
from fedimb.shapes import may_be_signal


def require_images(name: str, input_shape: tuple[int, ...]) -> None:
    """Raises ConfigError unless one input is (height, width) or (channels, height, width)."""
    if len(input_shape) not in (2, 3) or may_be_signal(input_shape):
        raise ConfigError(
            f"augmentation '{name}' changes images: expected inputs (height, width) or (channels, height, width), "
            f"this data has {tuple(input_shape)}; remove it from local.augmentation (noise takes any shape)"
        )
