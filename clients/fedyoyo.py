"""FedYoYo at a site: report effective numbers, and train with two views of every row."""

import numpy as np
import torch
from flwr.app import RecordDict

from fedimb import registry
from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client
from fedimb.contracts.fedyoyo import EFFECTIVE, EFFECTIVE_OF, SHARES, FedYoYoSettings
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.training.augmentations.two_views import TwoViews
from fedimb.training.effective_numbers import effective_numbers
from fedimb.training.losses.dla import DistributionAwareAdjustment
from fedimb.training.objectives.self_distil import SelfDistillation
from fedimb.training.spec import Augmentation, TrainSpec


@register("client", "fedyoyo")
class FedYoYoClient(Client):
    """FedYoYo at a site.

    Args:
        settings: a `FedYoYoSettings`; or give its fields by name.
    """

    def __init__(self, settings: FedYoYoSettings | None = None, **fields: object) -> None:
        self.settings = FedYoYoSettings.of(settings, fields)

    def check(self, site: Site) -> None:
        """Refuse data that the strong augmentation does not suit."""
        self._strong(site.store.input_shape)

    def _strong(self, input_shape: tuple[int, ...]) -> Augmentation:
        name, args = self.settings.part("strong")
        given = {"input_shape": input_shape} if "input_shape" in registry.parameters("augmentation", name) else {}
        made: Augmentation = registry.build("augmentation", name, given, **args)
        return made

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """The loss with the received class shares, and the distillation from the weak view to the strong one."""
        loss = spec.loss
        assert isinstance(loss, DistributionAwareAdjustment), "strategy 'fedyoyo' works with loss dla only"
        if SHARES in context.content:
            loss = loss.with_prior(arrays_of(context.content, SHARES)["shares"])
        weak = spec.augmentations
        views = TwoViews(weak, (*weak, self._strong(context.data.store.input_shape)))
        weight = self.settings.weight * min(context.round / self.settings.warmup, 1.0)
        distil = SelfDistillation(views, loss, weight, self.settings.temperature)
        return spec.change(loss=loss, augmentations=(views,), objectives=(*spec.objectives, distil))

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """The classes' effective numbers, over batches of the rows in order."""
        assert name == EFFECTIVE_OF, name
        features, logits = (part.cpu() for part in context.forward("trained_on"))
        labels = context.data.tensors("trained_on")[1].cpu()
        numbers = effective_numbers(features, labels, logits.shape[1], context.config.local.batch_size)
        numbers[torch.bincount(labels, minlength=logits.shape[1]) < self.settings.min_count] = 0
        return RecordDict({EFFECTIVE: array_record({"numbers": numbers.numpy().astype(np.float32)})})
