"""FedProto at a site: train with features near the shared prototypes, then report the classes' own mean features."""

import torch
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext
from fedimb.clients.base import Client
from fedimb.contracts.fedproto import FEATURE_SUMS, PROTOTYPES, FedProtoSettings
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.training.forward import forward_batched
from fedimb.training.local import LocalResult
from fedimb.training.objectives.prototype_distance import PrototypeDistance
from fedimb.training.spec import TrainSpec


@register("client", "fedproto")
class FedProtoClient(Client):
    """FedProto at a site.

    Args:
        settings: a `FedProtoSettings`; or give its fields by name.
    """

    def __init__(self, settings: FedProtoSettings | None = None, **fields: object) -> None:
        self.settings = FedProtoSettings.of(settings, fields)

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """The distance to the prototypes, once there are some."""
        if PROTOTYPES not in context.content or not self.settings.weight:
            return spec
        sent = arrays_of(context.content, PROTOTYPES)
        prototypes, known = torch.from_numpy(sent["prototypes"].copy()), torch.from_numpy(sent["known"].copy()) > 0
        distance = PrototypeDistance(self.settings.weight, prototypes, known)
        return spec.change(objectives=(*spec.objectives, distance))

    def after_training(self, result: LocalResult, context: ClientContext) -> RecordDict:
        """Sums of the features of each class's rows under the trained model, in evaluation mode, and their number."""
        x, y = context.data.tensors("trained_on")
        features, logits = forward_batched(context.model, x)
        counts = torch.bincount(y, minlength=logits.shape[1])
        counts = torch.where(counts >= self.settings.min_count, counts, 0)
        sums = features.new_zeros(len(counts), features.shape[1]).index_add_(0, y, features) * (counts > 0)[:, None]
        if not torch.isfinite(sums).all():  # training diverged
            sums, counts = torch.zeros_like(sums), torch.zeros_like(counts)
        return RecordDict({FEATURE_SUMS: array_record({"sums": sums.cpu().numpy(), "counts": counts.cpu().numpy()})})
