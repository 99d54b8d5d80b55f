"""RUCR at a site: class sums of features, training against the unified prototypes, and a head for their mixtures."""

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor
from torch.nn.functional import normalize

from fedimb.clientapp.context import ClientContext
from fedimb.clients.base import Client
from fedimb.contracts.rucr import HEAD, HEAD_OF, PROTOTYPES, PROTOTYPES_OF, UNIFIED, RucrSettings
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.training.gradient_matching import fit_head
from fedimb.training.objectives.clipped import ClippedGradient
from fedimb.training.objectives.unified_contrast import UnifiedContrast
from fedimb.training.spec import TrainSpec

_MIXED = 0.35, 0.95


def feature_sums(features: Tensor, labels: Tensor, n_classes: int, min_count: int = 1) -> tuple[Tensor, Tensor]:
    """Sum of the features of each class [C, d], in their dtype, and its rows [C] int64; 0 below ``min_count`` rows."""
    counts = torch.bincount(labels, minlength=n_classes)
    counts = torch.where(counts >= min_count, counts, 0)
    sums = features.new_zeros(n_classes, features.shape[1]).index_add_(0, labels, features)
    return torch.where(counts[:, None] > 0, sums, 0.0), counts


def mixtures(prototypes: Tensor, features: Tensor, shares: Tensor) -> Tensor:
    """lam nu_c + (1 - lam) unit(h) [C, m, d]: each class's prototype mixed with rows of any class.

    Args:
        prototypes: nu [C, d].
        features: h [C, m, d].
        shares: lam [C, m].
    """
    return shares[..., None] * prototypes[:, None] + (1 - shares[..., None]) * normalize(features, dim=-1)


@register("client", "rucr")
class RucrClient(Client):
    """RUCR at a site.

    Args:
        settings: a `RucrSettings`; or give its fields by name.
    """

    def __init__(self, settings: RucrSettings | None = None, **fields: object) -> None:
        self.settings = RucrSettings.of(settings, fields)

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """Add the contrast with the prototypes that came with the message, and cut long gradients."""
        if UNIFIED not in context.content:  # a method around this one trains first
            return spec
        prototypes = torch.from_numpy(arrays_of(context.content, UNIFIED)["prototypes"].copy())
        counts = context.counts if context.counts is not None else context.data.counts("trained_on")
        own = self.settings
        contrast = UnifiedContrast(prototypes, torch.from_numpy(np.array(counts, float)), own.beta, own.temperature)
        return spec.change(objectives=(*spec.objectives, contrast, ClippedGradient(own.max_norm)))

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """The classes' sums of features, or the re-trained head."""
        if name == PROTOTYPES_OF:
            features, logits = (part.cpu() for part in context.forward("trained_on"))
            labels = context.data.tensors("trained_on")[1].cpu()
            sums, counts = feature_sums(features, labels, logits.shape[1], self.settings.min_count)
            return RecordDict({PROTOTYPES: array_record({"sums": sums.numpy(), "counts": counts.numpy()})})
        assert name == HEAD_OF, name
        return self._head(torch.from_numpy(arrays_of(content, UNIFIED)["prototypes"].copy()), context)

    def _head(self, prototypes: Tensor, context: ClientContext) -> RecordDict:
        """SGD from the received head on mixtures of the classes that have a prototype."""
        own, generator = self.settings, context.generator()
        features = context.forward("trained_on")[0].cpu()
        head = context.model.head
        weight, bias = head.weight.detach().cpu().clone(), head.bias.detach().cpu().clone()
        held = (prototypes != 0).any(dim=1).nonzero().flatten()
        if len(features) and len(held):
            shape = len(prototypes), own.per_class
            low, high = _MIXED
            shares = (low + (high - low) * torch.rand(shape, generator=generator)).mul(100).round().div(100)
            drawn = features[torch.randint(len(features), shape, generator=generator)]
            rows = (held[:, None] * own.per_class + torch.arange(own.per_class)).flatten()
            batches: list[Tensor] = []
            for _ in range(own.head_epochs):
                batches += rows[torch.randperm(len(rows), generator=generator)].split(own.head_batch)
            weight, bias = fit_head((weight, bias), mixtures(prototypes, drawn, shares), batches, own.head_lr)
        arrays = {"weight": weight.numpy(), "bias": bias.numpy(), "rows": np.array([len(features)], np.int64)}
        return RecordDict({HEAD: array_record(arrays)})
