"""Attention blocks of convolutional networks: CBAM and DANet's. Both keep the shape of what they get.

Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018; Fu et al., "Dual Attention Network for Scene
Segmentation", CVPR 2019.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Attention = Literal["none", "cbam", "danet"]


class ConvolutionalAttention(nn.Module):
    """CBAM: maps F are multiplied by one weight per channel, then by one per place.

    With M a two-layer network (channels -> channels / reduction -> channels, ReLU between) and a, m the mean and the
    maximum over places, the channels' weights are sigmoid(M(a) + M(m)); with the mean and the maximum over channels of
    the result, the places' are sigmoid(7 x 7 convolution of both).

    Args:
        channels: of the maps.
        reduction: of the network, at least 1; 16 in the paper.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.channel = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, c, h, w] -> maps of the same shape."""
        weight = (self.channel(x.mean(dim=(2, 3))) + self.channel(x.amax(dim=(2, 3)))).sigmoid()
        x = x * weight[:, :, None, None]
        seen = torch.stack([x.mean(dim=1), x.amax(dim=1)], dim=1)
        return x * self.place(seen).sigmoid()


class DualAttention(nn.Module):
    """DANet: each place sees all places and each channel all channels; both results are added.

    Places: x + alpha sum_j s_ij V_j, where s_ij is the softmax over j of the products of two 1 x 1 convolutions of x to
    channels / 8, and V a third one. Channels: x + beta sum_j t_ij x_j, where t_ij is the softmax over j of the products
    of the channels. alpha and beta are learned, and 0 at first.

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query, self.key = nn.Conv2d(channels, inner, 1), nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.alpha, self.beta = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, c, h, w] -> maps of the same shape."""
        flat = x.flatten(2)
        place = (self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2)).softmax(-1)  # [n, places, places]
        over_places = self.value(x).flatten(2) @ place.transpose(1, 2)
        over_channels = (flat @ flat.transpose(1, 2)).softmax(-1) @ flat
        return 2 * x + (self.alpha * over_places + self.beta * over_channels).view_as(x)
