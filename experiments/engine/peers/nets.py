"""The bench's two models in plain torch, for programs that run without fedimb.

Parameter names are those of fedimb's models, so that its initial weights load by name; `Work.model` compares the logits
that fedimb computed with them.
"""

import itertools
import math

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU between: [n, ...] float32 -> logits [n, C]."""

    def __init__(self, shape: list[int], classes: int, hidden: list[int]) -> None:
        super().__init__()
        widths = [math.prod(shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


class Conv4(nn.Module):
    """Four convolutions with GroupNorm, pooling and ReLU: images [n, c, h, w] float32 -> logits [n, C].

    Images are laid out with channels last, as fedimb lays them out, which is the faster layout here.
    """

    def __init__(self, shape: list[int], classes: int, width: int) -> None:
        super().__init__()
        channels, high, wide = shape
        layers: list[nn.Module] = []
        for before in (channels, width, width, width):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.GroupNorm(max(1, width // 8), width)]
            layers += [nn.MaxPool2d(2), nn.ReLU()]
            high, wide = high // 2, wide // 2
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(width * high * wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x.contiguous(memory_format=torch.channels_last)))
        return logits


NETS = {"mlp": MLP, "cnn4conv": Conv4}
