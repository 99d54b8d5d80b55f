"""FedIIC's local term: contrast among the views of a batch, and to prototypes of all clients."""

import torch
from torch import Tensor, nn

from fedimb.models.base import Classifier
from fedimb.models.heads import ProjectedHead, unit
from fedimb.training.augmentations.two_views import TwoViews
from fedimb.training.contrast import inter_contrast, intra_contrast
from fedimb.training.objectives.base import LocalObjective


class PrototypeContrast(LocalObjective):
    """Adds intra times `intra_contrast` and inter times `inter_contrast` of the projected views of a batch.

    Args:
        views: the augmentation of the training, whose two views are compared.
        shares: the client's class shares [C].
        prototypes: [C, p], of length 1.
        intra, inter: weights, >= 0.
        floor: least temperature of the first.
        temperature: of the second.
    """

    def __init__(
        self,
        views: TwoViews,
        shares: Tensor,
        prototypes: Tensor,
        intra: float,
        inter: float,
        floor: float,
        temperature: float,
    ) -> None:
        self.views, self.intra, self.inter, self.floor, self.temperature = views, intra, inter, floor, temperature
        self._shares, self._prototypes = shares, prototypes

    def on_rows(self, labels: Tensor) -> None:
        """Move shares and prototypes to the rows' device."""
        self._shares, self._prototypes = self._shares.to(labels.device), self._prototypes.to(labels.device)

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """The weighted sum; features [n, d] are the first view's."""
        assert isinstance(model, Classifier)
        assert isinstance(model.head, ProjectedHead)
        seen = torch.stack([features, model.features(self.views.other)], dim=1)
        projected = unit(model.head.projector(seen))
        inside = intra_contrast(projected, labels, self._shares, self.floor)
        return self.intra * inside + self.inter * inter_contrast(projected, labels, self._prototypes, self.temperature)
