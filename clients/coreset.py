"""Coreset baselines at a site: compute what the rule reads, choose rows, keep the choice."""

import math

import torch
from flwr.app import RecordDict
from torch import Tensor

from fedimb import registry
from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client, coreset_record, set_coreset
from fedimb.clients.candidates import candidates_of
from fedimb.contracts.coreset import CENTRES, CENTRES_OF, CHOOSE, CHOSEN, MEANS, CoresetSettings
from fedimb.encoders.embed import open_encoder
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.selection.centres import class_means
from fedimb.selection.coresets.base import Candidates, CoresetRule
from fedimb.training.spec import TrainSpec


@register("client", "coreset")
class CoresetClient(Client):
    """A coreset baseline at a site.

    Args:
        settings: a `CoresetSettings`; or give its fields by name.
    """

    def __init__(self, settings: CoresetSettings | None = None, **fields: object) -> None:
        self.settings = CoresetSettings.of(settings, fields)
        rule, args = self.settings.part("rule")
        self.rule: CoresetRule = registry.build("coreset", rule, **args)

    def check(self, site: Site) -> None:
        """Refuse several labels per row, and an encoder that cannot work here."""
        if site.task != "multiclass":
            raise ConfigError(
                "strategy=coreset chooses rows by class, but these have several labels; use another strategy"
            )
        if "embeddings" in self.rule.needs:
            open_encoder(self.settings.encoder, site.store)

    def views(self, context: ClientContext) -> None:
        """Set the coreset, once it is chosen and until more rows are labelled."""
        if "chosen" in context.state:
            set_coreset(arrays_of(context.state, "chosen"), context)

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """Train for as many steps as on all rows (``steps: equal``), or for epochs over the coreset (``native``)."""
        if self.settings.steps == "equal" or not context.data.has("coreset"):
            return spec
        return spec.change(steps=context.steps_over("trained_on"))

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Answer with class means, or choose rows."""
        view = context.data.known_view
        labels = context.data.tensors(view)[1].cpu()
        classes = len(context.data.store.class_names)
        if name == CENTRES_OF:
            means = class_means(context.forward(view)[0].cpu(), labels, classes)
            return RecordDict({MEANS: array_record({"means": means.numpy()})})
        assert name == CHOOSE, name
        per_class = None
        if self.settings.match == "inner":
            inner = context.data.counts("coreset")
            per_class = torch.from_numpy(inner)
        keep = math.ceil(self.settings.keep * len(labels)) if per_class is None else int(per_class.sum())
        kept, steps = torch.arange(0), 0
        if len(labels):  # a client without labelled rows has nothing to choose from yet
            candidates, steps = self._candidates(content, context)
            kept = self.rule.select(candidates, keep, per_class)
        context.state["chosen"] = coreset_record(kept, context)
        counts = {
            "kept": torch.bincount(labels[kept], minlength=classes).int().numpy(),
            "held": torch.bincount(labels, minlength=classes).int().numpy(),
            "steps": torch.tensor([steps]).int().numpy(),
        }
        return RecordDict({CHOSEN: array_record(counts)})

    def _candidates(self, content: RecordDict, context: ClientContext) -> tuple[Candidates, int]:
        """What the rule reads at this client, and the local steps spent on computing it."""
        needs, own, given = self.rule.needs, self.settings, dict[str, Tensor]()
        if "centres" in needs:
            given["centres"] = torch.from_numpy(arrays_of(content, CENTRES)["centres"])
        if "global_counts" in needs:
            given["global_counts"] = torch.from_numpy(arrays_of(content, "x.global")["counts"]).double()
        view = context.data.known_view
        return candidates_of(view, needs, context, encoder=own.encoder, epochs=own.epochs, given=given)
