"""Convolutions that shorten a signal, then self-attention over what is left."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.models.blocks import Norm, check_width
from fedimb.models.cnn_lstm import shortening_blocks
from fedimb.models.heads import OWN_HEAD, Head, build_head
from fedimb.registry import register
from fedimb.shapes import signal_shape


@register("model", "cnn_transformer", when=OWN_HEAD)
class CNNTransformer(Classifier):
    """Two blocks of convolution, norm, ReLU and pooling by 2, sine positions, then Transformer layers; the features are
    the mean over time.

    Layers are those of Vaswani et al. (NeurIPS 2017) with the norm first (Xiong et al., ICML 2020), which needs no
    warm-up of the learning rate, and without dropout. Memory grows with the square of a quarter of the length.

    Args:
        n_classes: outputs (given by fedimb).
        input_shape: (channels, length) (given by fedimb).
        width: filters of each convolution, and width of the layers: a multiple of ``heads``, and even.
        layers: Transformer layers.
        heads: attention heads of each.
        norm: of the convolutions: ``group``, ``batch`` or ``none``.
        head: ``linear`` or ``cosine``.

    Raises:
        ConfigError: the data are not signals; a size out of range.
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: tuple[int, ...],
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        norm: Norm = "group",
        head: Head = "linear",
    ) -> None:
        super().__init__()
        channels, length = signal_shape("model", "cnn_transformer", input_shape)
        check_width("cnn_transformer", width)
        if layers < 1 or heads < 1:
            raise ConfigError(f"model 'cnn_transformer': layers={layers}, heads={heads}: give at least 1 of each")
        if width % heads or width % 2:
            raise ConfigError(
                f"model 'cnn_transformer': width={width} with heads={heads}: give an even width that is a multiple of "
                "heads"
            )
        self.stem = nn.Sequential(*shortening_blocks(channels, length, width, norm, (7, 5)))
        self.body = nn.Sequential(*(AttentionLayer(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = build_head(head, width, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Signals [n, channels, length] float32 -> [n, width]."""
        steps: Tensor = self.stem(x).transpose(1, 2)
        steps = self.body(steps + positions(steps.shape[1], steps.shape[2], steps))
        mean: Tensor = self.norm(steps).mean(dim=1)
        return mean


class AttentionLayer(nn.Module):
    """Self-attention and a two-layer perceptron, each after a norm and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[n, steps, width] -> the same shape."""
        n, steps, width = x.shape
        parts = self.projections(self.before(x)).view(n, steps, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(n, steps, width)
        x = x + self.out(attended)
        out: Tensor = x + self.perceptron(self.between(x))
        return out


def positions(steps: int, width: int, like: Tensor) -> Tensor:
    """[steps, width]: sines and cosines of each step's number at ``width / 2`` wavelengths from 2 pi to 20,000 pi."""
    rate = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10_000) / width))
    angle = torch.arange(steps, device=like.device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).to(like.dtype)
