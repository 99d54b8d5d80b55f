"""FedMD at a site: digest the consensus on the server's rows, revisit the own ones, say what the model thinks now."""

import torch
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext
from fedimb.clientapp.private_weights import STATE
from fedimb.clients.public_scores import ScoresPublicRows, said
from fedimb.contracts.fedmd import CONSENSUS, FedMDSettings
from fedimb.contracts.public_scores import ROWS
from fedimb.records import arrays_of
from fedimb.registry import register
from fedimb.seeds import Stream
from fedimb.training.distillation import LogitMatch, SoftTargets, balance_factor, distil
from fedimb.training.fusion import Targets
from fedimb.training.local import LocalResult, train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec


@register("client", "fedmd")
class FedMDClient(ScoresPublicRows):
    """FedMD at a site.

    Args:
        settings: a `FedMDSettings`; or give its fields by name.
    """

    name = "fedmd"

    def __init__(self, settings: FedMDSettings | None = None, **fields: object) -> None:
        self.settings = FedMDSettings.of(settings, fields)

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """Train on the server's rows here; the steps that are left of the round are on own rows."""
        if ROWS in context.state and spec.steps:
            generator = context.generator(Stream.METHOD, next(context.model.parameters()).device)
            if self.settings.pretrain and STATE not in context.state:
                spec = self._pretrained(spec, context, generator)
            if CONSENSUS in context.content and self.settings.digest:
                spec = self._digested(spec, context, generator)
        return super().train_spec(spec, context)

    def _pretrained(self, spec: TrainSpec, context: ClientContext, generator: torch.Generator) -> TrainSpec:
        """Train on the server's labelled rows, all classes, before the first training on own ones."""
        rows = arrays_of(context.state, ROWS)
        x, y = (torch.from_numpy(rows[part]).to(generator.device) for part in ("x", "y"))
        steps = self.settings.pretrain * -(-len(y) // spec.batch_size)
        own = spec.change(steps=steps, loss=CrossEntropy(), sampler=Shuffle(), objectives=(), augmentations=())
        taken = train_locally(context.model, x, y, own, generator).steps
        return spec.change(taken=spec.taken + taken)

    def _digested(self, spec: TrainSpec, context: ClientContext, generator: torch.Generator) -> TrainSpec:
        """Learn the consensus, by its share of the round's steps."""
        loss = self._loss(context)
        if loss is None:
            return spec
        steps = max(1, round(self.settings.digest * spec.steps))
        x = torch.from_numpy(arrays_of(context.state, ROWS)["x"])
        taken = distil(context.model, x, loss, spec.change(steps=steps), generator).steps
        return spec.change(steps=max(1, spec.steps - steps), taken=spec.taken + taken)

    def _loss(self, context: ClientContext) -> SoftTargets | LogitMatch | None:
        """What the consensus teaches this client; None if no row, or its factor, is above 0."""
        sent = {name: torch.from_numpy(value.copy()) for name, value in arrays_of(context.content, CONSENSUS).items()}
        factor = balance_factor(torch.from_numpy(context.class_counts("trained_on")), self.settings.balance)
        if factor <= 0 or not (sent["weights"] > 0).any():
            return None
        logits, weights, known = sent["logits"], sent["weights"], sent["known"] > 0
        if self.settings.match == "logits":
            return LogitMatch(logits, weights, known, factor)
        return SoftTargets(Targets(logits.softmax(dim=1), weights), known, factor)

    def after_training(self, result: LocalResult, context: ClientContext) -> RecordDict:
        """The trained model's logits of the server's rows; nothing from a client with few rows of its own."""
        if ROWS not in context.state or not result.steps or result.examples < self.settings.min_rows:
            return RecordDict()
        return said(torch.from_numpy(arrays_of(context.state, ROWS)["x"]), context)
