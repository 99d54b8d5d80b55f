"""The image network: diffusers' UNet2DModel; class and domain embeddings are added to the time embedding."""

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedimb.errors import ConfigError
from fedimb.generation.examples import images_expected
from fedimb.process_env import import_offline

_GROUPS = 8  # of GroupNorm; diffusers' 32 do not fit small widths


def default_widths(height: int, width: int) -> tuple[int, ...]:
    """Channels per level, small enough for one CPU core; results in docs/generators.md."""
    side = max(height, width)
    return (16, 32) if side <= 16 else (16, 32, 32) if side <= 32 else (32, 64, 64)


class ConditionalUNet(nn.Module):
    """A UNet conditioned on class and domain: ``net(z [n, *shape], time [n] in 0..1000, y [n], d [n]) -> [n, *shape]``.

    Images are edge-padded to the multiple of 2 ** (levels - 1) that the levels need, and cropped again.

    Args:
        shape: (height, width) or (channels, height, width).
        widths: channels of each level, multiples of 8.
        attention: self-attention between pixels at the innermost level.
        seed: of the initial weights; the global random state is not changed.

    Raises:
        ConfigError: rows that are not images, widths that do not fit, or diffusers is not installed.
    """

    def __init__(
        self,
        n_classes: int,
        n_domains: int,
        shape: tuple[int, ...],
        widths: Sequence[int],
        attention: bool,
        seed: int,
        name: str,
    ) -> None:
        super().__init__()
        self.image = images_expected(name, shape)
        if not widths or any(w < _GROUPS or w % _GROUPS for w in widths):
            raise ConfigError(f"generator '{name}': widths={list(widths)}: give multiples of {_GROUPS}, one per level")
        self._multiple = 2 ** (len(widths) - 1)
        model = diffusers(name).UNet2DModel
        down = ["DownBlock2D"] * (len(widths) - 1) + ["AttnDownBlock2D" if attention else "DownBlock2D"]
        up = ["AttnUpBlock2D" if attention else "UpBlock2D"] + ["UpBlock2D"] * (len(widths) - 1)
        channels = self.image[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.unet = model(
                in_channels=channels,
                out_channels=channels,
                down_block_types=down,
                up_block_types=up,
                block_out_channels=tuple(widths),
                layers_per_block=1,
                norm_num_groups=_GROUPS,
                add_attention=attention,
                class_embed_type="identity",
            )
            self.class_embedding = nn.Embedding(n_classes + 1, 4 * widths[0])
            self.domain_embedding = nn.Embedding(n_domains + 1, 4 * widths[0])

    def forward(self, z: Tensor, time: Tensor, y: Tensor, d: Tensor) -> Tensor:
        channels, height, width = self.image
        missing = (0, -width % self._multiple, 0, -height % self._multiple)
        padded = F.pad(z.reshape(-1, channels, height, width), missing, "replicate")
        conditions = self.class_embedding(y) + self.domain_embedding(d)
        output: Tensor = self.unet(padded, time, class_labels=conditions, return_dict=False)[0]
        return output[..., :height, :width].reshape(z.shape)


def diffusers(name: str) -> ModuleType:
    """Import the package only when it is needed (it takes seconds).

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_offline("diffusers")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a package beside it that does not fit torch
        raise ConfigError(
            f"generator '{name}' needs the Python package diffusers ({error}): pip install 'fedimb[generate]'"
        ) from error
