"""Distillation from a given teacher: a new model learns from labels and from another model's predictions.

Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015; used for IFAL's local model (IJCAI 2025).
"""

from torch import Tensor, nn

from fedimb.training.losses.base import RowLoss
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.objectives.distil import Distil


class TeacherDistillation(Distil):
    """Adds weight T^2 KL(softmax(t / T) || softmax(z / T)) with the logits t of ``teacher``, in evaluation mode.

    Args:
        teacher: used without gradients, and left in evaluation mode.
        weight, temperature: see `Distil`.
    """

    def __init__(self, teacher: nn.Module, weight: float, temperature: float) -> None:
        super().__init__(weight, temperature)
        self._given = teacher

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Use the given teacher instead of a copy of the model."""
        self._teacher = self._given.eval() if self.weight else None


class ScaledCrossEntropy(RowLoss):
    """``share`` times the cross-entropy, for objectives with several terms.

    Args:
        share: in (0, 1].
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self._whole = share, CrossEntropy()

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `RowLoss`."""
        return self.share * self._whole.rows(logits, labels)
