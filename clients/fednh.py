"""FedNH at a site: train the body against fixed prototypes, then report the classes' own."""

import torch
from flwr.app import RecordDict
from torch import Tensor
from torch.nn.functional import normalize

from fedimb.clientapp.context import ClientContext
from fedimb.clients.base import Client
from fedimb.contracts.fednh import PROTOTYPES, FedNHSettings
from fedimb.records import array_record
from fedimb.registry import register
from fedimb.training.forward import forward_batched
from fedimb.training.local import LocalResult
from fedimb.training.objectives.clipped import ClippedGradient
from fedimb.training.objectives.frozen_head import FrozenHead
from fedimb.training.spec import TrainSpec


def class_prototypes(features: Tensor, labels: Tensor, n_classes: int, min_count: int = 1) -> tuple[Tensor, Tensor]:
    """n_kc mu_kc and n_kc of each class: mu_kc is the direction of the mean of the rows' directions, normalised twice.

    Args:
        features: [n, d].
        labels: [n] int64.
        min_count: a class of fewer rows is 0 in both.

    Returns:
        [C, d] in the features' dtype and [C] int64.
    """
    counts = torch.bincount(labels, minlength=n_classes)
    counts = torch.where(counts >= min_count, counts, 0)
    sums = features.new_zeros(n_classes, features.shape[1]).index_add_(0, labels, normalize(features, dim=1))
    return normalize(sums, dim=1) * counts[:, None], counts


@register("client", "fednh")
class FedNHClient(Client):
    """FedNH at a site.

    Args:
        settings: a `FedNHSettings`; or give its fields by name.
    """

    def __init__(self, settings: FedNHSettings | None = None, **fields: object) -> None:
        self.settings = FedNHSettings.of(settings, fields)

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """The prototypes are not trained, and long gradients are cut."""
        return spec.change(objectives=(*spec.objectives, FrozenHead(), ClippedGradient(self.settings.max_norm)))

    def after_training(self, result: LocalResult, context: ClientContext) -> RecordDict:
        """The prototypes of the classes under the trained model, in evaluation mode."""
        x, y = context.data.tensors("trained_on")
        features, logits = forward_batched(context.model, x)
        sums, counts = class_prototypes(features, y, logits.shape[1], self.settings.min_count)
        if not torch.isfinite(sums).all():  # training diverged: the server leaves the reply out
            sums, counts = torch.zeros_like(sums), torch.zeros_like(counts)
        return RecordDict({PROTOTYPES: array_record({"sums": sums.cpu().numpy(), "counts": counts.cpu().numpy()})})
