"""Convolutions over time, for signals: the fully convolutional network of Wang, Yan and Oates (IJCNN 2017)."""

from torch import Tensor, nn

from fedimb.models.base import Classifier
from fedimb.models.blocks import Norm, check_width, conv_block
from fedimb.models.heads import OWN_HEAD, Head, build_head
from fedimb.registry import register
from fedimb.shapes import signal_shape


@register("model", "cnn1d", when=OWN_HEAD)
class CNN1d(Classifier):
    """Three blocks of convolution, norm and ReLU, then the mean over time; for signals of any length, without earlier
    pooling.

    As published except for odd kernels (7, 5, 3 instead of 8, 5, 3, for symmetric padding), the width and the norm.

    Args:
        n_classes: outputs (given by fedimb).
        input_shape: (channels, length) (given by fedimb).
        width: filters of the first and last block; the middle one has twice as many (published: 128).
        norm: ``group``, ``batch`` (the paper's) or ``none``.
        head: ``linear`` or ``cosine``.

    Raises:
        ConfigError: the data are not signals; no filter.
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: tuple[int, ...],
        width: int = 64,
        norm: Norm = "group",
        head: Head = "linear",
    ) -> None:
        super().__init__()
        channels, _ = signal_shape("model", "cnn1d", input_shape)
        check_width("cnn1d", width)
        layers: list[nn.Module] = []
        fan_in = channels
        for fan_out, kernel in ((width, 7), (2 * width, 5), (width, 3)):
            layers += conv_block(fan_in, fan_out, kernel, norm, dims=1)
            fan_in = fan_out
        self.body = nn.Sequential(*layers)
        self.head = build_head(head, width, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Signals [n, channels, length] float32 -> [n, width]."""
        maps: Tensor = self.body(x)
        return maps.mean(dim=2)
