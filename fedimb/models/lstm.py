"""Long short-term memory over the samples of a window, as in seizure prediction from EEG."""

from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.models.blocks import check_width
from fedimb.models.heads import OWN_HEAD, Head, build_head
from fedimb.registry import register
from fedimb.shapes import signal_shape


@register("model", "lstm", when=OWN_HEAD)
class LSTM(Classifier):
    """One or more LSTM layers (Hochreiter and Schmidhuber, Neural Computation 1997) over time; the features are the
    last layer's state after the last sample.

    The forget gates start at 1 (Jozefowicz, Zaremba and Sutskever, ICML 2015), since a window of hundreds of samples is
    forgotten otherwise before training begins. The time of a step grows with the length of a window: resample it, or
    use cnn_lstm.

    Args:
        n_classes: outputs (given by fedimb).
        input_shape: (channels, length) (given by fedimb).
        width: units of a layer.
        layers: LSTM layers, one on top of the other.
        head: ``linear`` or ``cosine``.

    Raises:
        ConfigError: the data are not signals; no unit or layer.
    """

    def __init__(
        self, n_classes: int, input_shape: tuple[int, ...], width: int = 64, layers: int = 1, head: Head = "linear"
    ) -> None:
        super().__init__()
        channels, _ = signal_shape("model", "lstm", input_shape)
        self.body = recurrent_layers("lstm", channels, width, layers)
        self.head = build_head(head, width, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Signals [n, channels, length] float32 -> [n, width]."""
        return last_state(self.body, x)


def recurrent_layers(model: str, channels: int, width: int, layers: int) -> nn.LSTM:
    """LSTM layers whose forget gates start at 1. ConfigError if there is no unit or layer."""
    check_width(model, width)
    if layers < 1:
        raise ConfigError(f"model '{model}': layers={layers}: give at least 1")
    made = nn.LSTM(channels, width, layers, batch_first=True)
    for name, bias in made.named_parameters():
        if name.startswith("bias_ih"):  # gates in the order input, forget, cell, output; the two biases add up
            nn.init.zeros_(bias)
            nn.init.ones_(bias[width : 2 * width])
        elif name.startswith("bias_hh"):
            nn.init.zeros_(bias)
    return made


def last_state(layers: nn.LSTM, x: Tensor) -> Tensor:
    """Signals [n, channels, length] -> state of the last layer after the last sample [n, width]."""
    states: Tensor = layers(x.transpose(1, 2))[0]
    return states[:, -1]
