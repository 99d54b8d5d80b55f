"""What image augmentations ask of a batch."""

from torch import Tensor

from fedimb.errors import ConfigError


def require_images(name: str, x: Tensor) -> None:
    """Raises ConfigError unless x is [n, height, width] or [n, channels, height, width]."""
    if x.ndim not in (3, 4):
        raise ConfigError(
            f"augmentation '{name}' changes images: expected inputs (height, width) or (channels, height, width), "
            f"this data has {tuple(x.shape[1:])}; remove it from local.augmentation (noise takes any shape)"
        )
