"""FedIIC at a site: report each class's losses, and train with adjusted logits and two contrasts."""

import torch
from flwr.app import RecordDict
from torch.nn.functional import cross_entropy

from fedimb.clientapp.context import ClientContext
from fedimb.clients.base import Client
from fedimb.contracts.fediic import CLASS_LOSSES, CLASS_LOSSES_OF, GUIDE, FedIICSettings
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.training.augmentations.two_views import TwoViews
from fedimb.training.contrast import difficulty_shift
from fedimb.training.losses.base import AdjustedCrossEntropy
from fedimb.training.losses.local_balanced_softmax import log_shares
from fedimb.training.objectives.prototype_contrast import PrototypeContrast
from fedimb.training.spec import TrainSpec


@register("client", "fediic")
class FedIICClient(Client):
    """FedIIC at a site.

    Args:
        settings: a `FedIICSettings`; or give its fields by name.
    """

    def __init__(self, settings: FedIICSettings | None = None, **fields: object) -> None:
        self.settings = FedIICSettings.of(settings, fields)

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """Logits adjusted by the client's shares and the classes' losses, and the contrasts of two views."""
        own, guide = self.settings, arrays_of(context.content, GUIDE)
        logs = torch.from_numpy(log_shares(context.data.counts("trained_on").astype(float), "floor"))
        shift = difficulty_shift(logs, torch.from_numpy(guide["losses"].copy()).double(), own.exponent)
        views = TwoViews(spec.augmentations, spec.augmentations)
        prototypes = torch.from_numpy(guide["prototypes"].copy())
        weights = own.intra, own.inter, own.floor, own.temperature
        contrast = PrototypeContrast(views, logs.exp().float(), prototypes, *weights)
        return spec.change(
            loss=AdjustedCrossEntropy(shift.float()), augmentations=(views,), objectives=(*spec.objectives, contrast)
        )

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """The classes' sums of cross-entropy and their rows."""
        assert name == CLASS_LOSSES_OF, name
        logits = context.forward("trained_on")[1].cpu()
        labels = context.data.tensors("trained_on")[1].cpu()
        classes = logits.shape[1]
        counts = torch.bincount(labels, minlength=classes)
        losses = cross_entropy(logits.double(), labels, reduction="none")
        sums = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, losses)
        enough = counts >= self.settings.min_count
        arrays = {"sums": (sums * enough).float().numpy(), "counts": torch.where(enough, counts, 0).numpy()}
        return RecordDict({CLASS_LOSSES: array_record(arrays)})
