"""Label smoothing of any loss of rows.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7.
"""

import torch
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.training.losses.base import RowLoss


class SmoothedLoss(RowLoss):
    """``(1 - smoothing) x`` the loss of the label ``+ smoothing x`` its mean over all classes as label.

    For cross-entropy this is torch's ``label_smoothing``.

    Args:
        loss: of rows with one label each.
        smoothing: in [0, 1).
    """

    def __init__(self, loss: RowLoss, smoothing: float) -> None:
        super().__init__()
        self.loss, self.smoothing = loss, smoothing

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [n, C] float32 and labels [n] int64 -> loss of each row [n].

        Raises:
            ConfigError: the rows have several labels each.
        """
        if labels.dim() == logits.dim():
            raise ConfigError("local.label_smoothing needs one class per row, these have several labels: set it to 0")
        classes = logits.shape[-1]
        each = torch.arange(classes, device=logits.device).expand(*labels.shape, classes)
        everywhere = logits.unsqueeze(-2).expand(*labels.shape, classes, classes)
        mean = self.loss.rows(everywhere, each).mean(-1)
        return (1 - self.smoothing) * self.loss.rows(logits, labels) + self.smoothing * mean


def smoothed(loss: nn.Module, smoothing: float, name: str) -> SmoothedLoss:
    """`SmoothedLoss` of a configured loss.

    Raises:
        ConfigError: the loss is not a mean of losses of rows.
    """
    if not isinstance(loss, RowLoss):
        raise ConfigError(
            f"local.label_smoothing={smoothing:g} needs a loss of single rows, and loss '{name}' is none; set "
            "local.label_smoothing=0, or loss=ce"
        )
    return SmoothedLoss(loss, smoothing)
