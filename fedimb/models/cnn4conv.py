"""Four convolutions: CNN4Conv, the small image model of federated active learning (FairFAL)."""

from torch import Tensor, nn

from fedimb.models.base import Classifier
from fedimb.models.blocks import Norm, check_width, conv_block
from fedimb.models.heads import OWN_HEAD, Head, build_head
from fedimb.models.images import as_images, image_shape
from fedimb.registry import register


@register("model", "cnn4conv", when=OWN_HEAD)
class CNN4Conv(Classifier):
    """Four blocks of 3 x 3 convolution, norm, ReLU and 2 x 2 max pooling; the head's bias starts at zero.

    Pooling is skipped if a side would vanish, so 8 x 8 images work too. Features: 256 for 32 x 32, 64 for
    28 x 28 (64 filters).

    Args:
        n_classes: outputs (given by fedimb).
        input_shape: (height, width) or (channels, height, width) (given by fedimb).
        width: filters of each convolution.
        norm: ``group``, ``batch`` (the papers') or ``none``.
        head: ``linear`` or ``cosine``.

    Raises:
        ConfigError: the data are not images; no filter.
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
        channels, high, wide = image_shape("model 'cnn4conv' reads", input_shape)
        check_width("cnn4conv", width)
        layers: list[nn.Module] = []
        for fan_in in (channels, width, width, width):
            block = conv_block(fan_in, width, 3, norm)
            if min(high, wide) >= 2:
                # Before ReLU, not after it as in the paper: the same values and gradients, bit for bit, and ReLU has
                # a quarter of the work.
                block.insert(-1, nn.MaxPool2d(2))
                high, wide = high // 2, wide // 2
            layers += block
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = build_head(head, width * high * wide, n_classes)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def features(self, x: Tensor) -> Tensor:
        """Images [n, *input_shape] float32 -> [n, width x height/16 x width/16]."""
        out: Tensor = self.body(as_images(x))
        return out
