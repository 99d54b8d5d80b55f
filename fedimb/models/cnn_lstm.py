"""Convolutions that shorten a signal, then a long short-term memory over what is left."""

from torch import Tensor, nn

from fedimb.models.base import Classifier
from fedimb.models.blocks import Norm, check_width, conv_block
from fedimb.models.heads import OWN_HEAD, Head, build_head
from fedimb.models.lstm import last_state, recurrent_layers
from fedimb.registry import register
from fedimb.shapes import signal_shape


@register("model", "cnn_lstm", when=OWN_HEAD)
class CNNLSTM(Classifier):
    """Two blocks of convolution, norm, ReLU and pooling by 2, then an LSTM over the quarter of the length that is left;
    the features are its last state.

    The order of the parts is that of Oh, Ng, Tan and Acharya (Computers in Biology and Medicine 2018) for arrhythmia;
    their depth, widths and dropout are not.

    Args:
        n_classes: outputs (given by fedimb).
        input_shape: (channels, length) (given by fedimb).
        width: filters of each convolution, and units of the LSTM.
        layers: LSTM layers.
        norm: ``group``, ``batch`` or ``none``.
        head: ``linear`` or ``cosine``.

    Raises:
        ConfigError: the data are not signals; no filter or layer.
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: tuple[int, ...],
        width: int = 64,
        layers: int = 1,
        norm: Norm = "group",
        head: Head = "linear",
    ) -> None:
        super().__init__()
        channels, length = signal_shape("model", "cnn_lstm", input_shape)
        check_width("cnn_lstm", width)
        self.stem = nn.Sequential(*shortening_blocks(channels, length, width, norm, (7, 5)))
        self.body = recurrent_layers("cnn_lstm", width, width, layers)
        self.head = build_head(head, width, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Signals [n, channels, length] float32 -> [n, width]."""
        return last_state(self.body, self.stem(x))


def shortening_blocks(channels: int, length: int, width: int, norm: Norm, kernels: tuple[int, ...]) -> list[nn.Module]:
    """A convolution block for each kernel, each followed by max pooling by 2 as long as two samples are left."""
    layers: list[nn.Module] = []
    for kernel in kernels:
        layers += conv_block(channels, width, kernel, norm, dims=1)
        channels = width
        if length >= 2:
            layers.append(nn.MaxPool1d(2))
            length //= 2
    return layers
