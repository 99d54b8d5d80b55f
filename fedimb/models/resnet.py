"""Residual networks with GroupNorm in place of BatchNorm.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016: the CIFAR family (three stages,
depth 6n + 2), ResNet-18 and ResNet-34 (four stages), basic blocks, 1 x 1 projections where the shape changes.

Options that sources of rare-class systems add: CBAM after every stage (AttX-Net, arXiv 2604.27617), DANet's two
attentions after the last, and fusion of layers: the pooled maps of every stage side by side as features (SG-CLDFF's,
without its saliency maps).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from fedimb.errors import ConfigError
from fedimb.models.anchor import EmaAnchor
from fedimb.models.attention import Attention, ConvolutionalAttention, DualAttention
from fedimb.models.base import Classifier
from fedimb.models.blocks import Norm, build_norm, check_width
from fedimb.models.heads import OWN_HEAD, Head, build_head
from fedimb.models.images import as_images, image_shape
from fedimb.registry import register
from fedimb.registry.arguments import in_range

SMALL = 64
"""Longest side, in pixels, up to which the stem keeps the resolution."""


def _conv(fan_in: int, fan_out: int, kernel: int, stride: int, norm: Norm) -> nn.Conv2d:
    """A padded convolution with He's normal weights; if a norm follows, it has no bias, which would have no effect."""
    made = skip_init(nn.Conv2d, fan_in, fan_out, kernel, stride=stride, padding=kernel // 2, bias=norm == "none")
    assert isinstance(made, nn.Conv2d)  # skip_init is annotated as returning any module
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: [n, fan_in, h, w] -> [n, fan_out, h / stride, w / stride]."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = _conv(fan_in, fan_out, 3, stride, norm)
        self.norm1 = build_norm(norm, fan_out)
        self.conv2 = _conv(fan_out, fan_out, 3, 1, norm)
        self.norm2 = build_norm(norm, fan_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(_conv(fan_in, fan_out, 1, stride, norm), build_norm(norm, fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """One block; see the class."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


@dataclass(frozen=True)
class Extras:
    """What may be added to a residual network.

    Attributes:
        attention: ``none``, ``cbam`` after every stage or ``danet`` after the last.
        fusion: whether features are the pooled maps of all stages; else those of the last.
        anchor: momentum of a copy of the last stage (`fedimb.models.anchor`), in [0, 1); None: there is none.
    """

    attention: Attention = "none"
    fusion: bool = False
    anchor: float | None = None

    def check(self, name: str, norm: Norm) -> None:
        """Refuse what does not go together.

        Raises:
            ConfigError: an anchor with BatchNorm or fusion, or a momentum out of range.
        """
        if self.anchor is None:
            return
        in_range(f"model '{name}'", "anchor", self.anchor, 0, 1, high_allowed=False)
        if norm == "batch" or self.fusion:
            other = (
                "fusion=true: both say what the features are"
                if self.fusion
                else ("norm=batch: the copy would change the running statistics of the trained stage")
            )
            raise ConfigError(f"model '{name}': anchor={self.anchor:g} does not go with {other}; leave one out")

    def after(self, channels: int, last: bool) -> list[nn.Module]:
        """The blocks after a stage of so many channels.

        Raises:
            ConfigError: an unknown attention.
        """
        if self.attention not in ("none", "cbam", "danet"):
            raise ConfigError(f"model: attention='{self.attention}': give none, cbam or danet")
        if self.attention == "cbam":
            return [ConvolutionalAttention(channels)]
        return [DualAttention(channels)] if last and self.attention == "danet" else []


class ResNet(Classifier):
    """Stem, stages of basic blocks (each twice as wide and half the size of the previous one), global average, head.

    The stem is one 3 x 3 convolution for images up to 64 x 64 and ImageNet's (7 x 7 with stride 2, then 3 x 3 max
    pooling with stride 2) for larger ones.

    Args:
        name: for messages.
        blocks: basic blocks of each stage.
        n_classes, input_shape, width, norm, head: see `resnet8`.
        extras: attention and fusion.
    """

    def __init__(
        self,
        name: str,
        blocks: tuple[int, ...],
        n_classes: int,
        input_shape: tuple[int, ...],
        width: int,
        norm: Norm,
        head: Head,
        extras: Extras,
    ) -> None:
        super().__init__()
        channels, high, wide = image_shape(f"model '{name}' reads", input_shape)
        check_width(name, width)
        if max(high, wide) <= SMALL:
            self.stem = nn.Sequential(_conv(channels, width, 3, 1, norm), build_norm(norm, width), nn.ReLU())
        else:
            pool = nn.MaxPool2d(3, stride=2, padding=1)  # before ReLU: the same bits for less work, see `CNN4Conv`
            self.stem = nn.Sequential(_conv(channels, width, 7, 2, norm), build_norm(norm, width), pool, nn.ReLU())
        layers: list[nn.Module] = []
        pooled: list[int] = []  # positions of the layers whose maps are pooled for the features
        fan_in, features, first_of_last = width, 0, 0
        extras.check(name, norm)
        for stage, count in enumerate(blocks):
            first_of_last = len(layers)
            for block in range(count):
                fan_out, stride = width * 2**stage, 2 if stage and not block else 1
                layers.append(BasicBlock(fan_in, fan_out, stride, norm))
                fan_in = fan_out
            last = stage == len(blocks) - 1
            layers += extras.after(fan_in, last)
            if last or extras.fusion:
                pooled.append(len(layers) - 1)
                features += fan_in
        self.body, self._pooled = nn.Sequential(*layers), frozenset(pooled)
        if extras.anchor is not None:
            self.scales = nn.ModuleList(_conv(fan_in, fan_in, kernel, 1, "none") for kernel in (1, 3, 5))
            self._last_stage, features = first_of_last, 4 * fan_in
            self.anchor = EmaAnchor(self.body[first_of_last:], extras.anchor)
        self.head = build_head(head, features, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Images [n, *input_shape] float32 -> [n, width x 2^(stages - 1)], with fusion [n, width x (2^stages - 1)]."""
        maps: Tensor = self.stem(as_images(x))
        if hasattr(self, "anchor"):
            return self._anchored(self.body[: self._last_stage](maps))
        means = []
        for at, layer in enumerate(self.body):
            maps = layer(maps)
            if at in self._pooled:
                means.append(maps.mean(dim=(2, 3)))
        return means[0] if len(means) == 1 else torch.cat(means, dim=1)

    def _anchored(self, maps: Tensor) -> Tensor:
        """Input of the last stage -> [n, 4 c]: its maps at three scales, and the anchor's, pooled."""
        stage = self.body[self._last_stage :]
        own = stage(maps)
        seen = [*(scale(own) for scale in self.scales), self.anchor(stage, maps)]
        return torch.cat([one.mean(dim=(2, 3)) for one in seen], dim=1)


@register("model", "resnet8", when=OWN_HEAD)
def resnet8(
    n_classes: int,
    input_shape: tuple[int, ...],
    width: int = 16,
    norm: Norm = "group",
    head: Head = "linear",
    attention: Attention = "none",
    fusion: bool = False,
    anchor: float | None = None,
) -> ResNet:
    """Three stages of one block; 78 k parameters at width 16 (3 channels, 10 classes).

    At width 64 it is the ResNet-8 of the CReFF line: 1,227,594 parameters, with ``norm="batch"`` as there.

    Args:
        n_classes: outputs (given by fedimb).
        input_shape: (height, width) or (channels, height, width) (given by fedimb).
        width: channels of the first stage.
        norm: ``group``, ``batch`` or ``none``.
        head: ``linear`` or ``cosine``.
        attention: ``none``, ``cbam`` after every stage, or ``danet`` after the last.
        fusion: features are the pooled maps of all stages side by side, not those of the last alone.
        anchor: momentum of a slowly moving copy of the last stage, whose maps stand beside the trained ones; or None.

    Raises:
        ConfigError: the data are not images; no channel; an unknown attention; an anchor with BatchNorm or fusion.
    """
    return ResNet("resnet8", (1, 1, 1), n_classes, input_shape, width, norm, head, Extras(attention, fusion, anchor))


@register("model", "resnet20", when=OWN_HEAD)
def resnet20(
    n_classes: int,
    input_shape: tuple[int, ...],
    width: int = 16,
    norm: Norm = "group",
    head: Head = "linear",
    attention: Attention = "none",
    fusion: bool = False,
    anchor: float | None = None,
) -> ResNet:
    """Three stages of three blocks; 272 k parameters at width 16. Arguments and errors: see `resnet8`."""
    return ResNet("resnet20", (3, 3, 3), n_classes, input_shape, width, norm, head, Extras(attention, fusion, anchor))


@register("model", "resnet18", when=OWN_HEAD)
def resnet18(
    n_classes: int,
    input_shape: tuple[int, ...],
    width: int = 64,
    norm: Norm = "group",
    head: Head = "linear",
    attention: Attention = "none",
    fusion: bool = False,
    anchor: float | None = None,
) -> ResNet:
    """Four stages of two blocks; 11.2 M parameters at width 64. Arguments and errors: see `resnet8`."""
    return ResNet(
        "resnet18", (2, 2, 2, 2), n_classes, input_shape, width, norm, head, Extras(attention, fusion, anchor)
    )


@register("model", "resnet34", when=OWN_HEAD)
def resnet34(
    n_classes: int,
    input_shape: tuple[int, ...],
    width: int = 64,
    norm: Norm = "group",
    head: Head = "linear",
    attention: Attention = "none",
    fusion: bool = False,
    anchor: float | None = None,
) -> ResNet:
    """Four stages of 3, 4, 6 and 3 blocks; 21.3 M parameters at width 64. Arguments and errors: see `resnet8`."""
    return ResNet(
        "resnet34", (3, 4, 6, 3), n_classes, input_shape, width, norm, head, Extras(attention, fusion, anchor)
    )
