"""FedYoYo's self-distillation: a weakly augmented view of a row teaches a strongly augmented one.

ICCV 2025: L = CE over both views + lambda min(r / warmup, 1) KL(weak || strong), softmax at temperature T without T^2,
both after the loss's adjustment of the logits; the mean over the rows whose weak view is classified rightly, without
gradient in it.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from fedimb.models.base import Classifier
from fedimb.training.augmentations.two_views import TwoViews
from fedimb.training.losses.base import AdjustedCrossEntropy
from fedimb.training.objectives.base import LocalObjective


class SelfDistillation(LocalObjective):
    """Moves half of the batch loss's weight to the strong view and adds the divergence; built by FedYoYo's client.

    Args:
        views: the augmentation of the training, whose second view is the strong one.
        loss: the loss of the training.
        weight: lambda as scheduled for the round, >= 0.
        temperature: T, > 0.
    """

    def __init__(self, views: TwoViews, loss: AdjustedCrossEntropy, weight: float, temperature: float) -> None:
        self.views, self.weight, self.temperature = views, weight, temperature
        self._loss = loss

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """What is added to the weak view's loss; logits [n, C] are the weak view's."""
        assert isinstance(model, Classifier)
        strong = model.head(model.features(self.views.other))
        both = (self._loss(strong, labels) - self._loss(logits, labels)) / 2
        taught, _ = distillation(self._loss.adjusted(logits), self._loss.adjusted(strong), labels, self.temperature)
        return both + self.weight * taught


def distillation(weak: Tensor, strong: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """KL(softmax(weak / T) || softmax(strong / T)) over the rows that weak gets right, and which these are.

    Args:
        weak, strong: adjusted logits [n, C]; no gradient flows into weak.
        labels: [n] int64.

    Returns:
        the mean, a scalar, 0 if no row is right; and [n] bool.
    """
    taught = weak.detach()
    right = taught.argmax(dim=1) == labels
    theirs, ours = log_softmax(taught / temperature, dim=1), log_softmax(strong / temperature, dim=1)
    each = kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1)
    return torch.where(right, each, 0.0).sum() / right.sum().clamp_min(1), right
