"""Class-incremental learning at a site: the rows of a phase, and the memory of earlier ones, which never leaves it."""

import numpy as np
import torch
from flwr.app import RecordDict

from fedimb import registry
from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client
from fedimb.clients.candidates import LOCAL, candidates_of
from fedimb.contracts.class_incremental import BEGIN, PHASE, SEEN, STATE_OF_PHASE, ClassIncrementalSettings
from fedimb.data.views import Rows
from fedimb.encoders.embed import open_encoder
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.selection.budgets import apportion
from fedimb.selection.coresets.base import CoresetRule
from fedimb.training.spec import TrainSpec


@register("client", "class_incremental")
class ClassIncrementalClient(Client):
    """Class-incremental learning at a site.

    Args:
        settings: a `ClassIncrementalSettings`; or give its fields by name.
    """

    def __init__(self, settings: ClassIncrementalSettings | None = None, **fields: object) -> None:
        self.settings = ClassIncrementalSettings.of(settings, fields)
        self._rule, args = self.settings.part("rule")
        self.rule: CoresetRule = registry.build("coreset", self._rule, **args)

    def check(self, site: Site) -> None:
        """Refuse several labels per row, a rule that needs figures of the whole federation, and an encoder that cannot
        work here.
        """
        if site.task != "multiclass":
            raise ConfigError(
                "strategy=class_incremental shows rows by class, but these have several labels; use another strategy"
            )
        if missing := sorted(self.rule.needs - LOCAL):
            raise ConfigError(
                f"strategy.class_incremental.rule={self._rule} needs {' and '.join(missing)} of the whole federation, "
                "and each client chooses by itself here; use another rule, such as herding"
            )
        if "embeddings" in self.rule.needs:
            open_encoder(self.settings.encoder, site.store)

    def views(self, context: ClientContext) -> None:
        """Show the rows of the phase's classes, and the memory."""
        if STATE_OF_PHASE not in context.state:
            return
        kept, data = arrays_of(context.state, STATE_OF_PHASE), context.data
        rows = data.rows("train")
        data.set_view("phase", np.union1d(rows[np.isin(data.store.y[rows], kept["new"])], kept["memory"]))

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """Train for the configured epochs over the phase's rows and the memory; without either, not at all."""
        return spec.change(steps=context.steps_over("trained_on"))

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Keep rows of the phases before, then begin the phase; answer with the rows that it is trained on."""
        assert name == BEGIN, name
        said, data = arrays_of(content, PHASE), context.data
        memory, steps = np.zeros(0, np.int64), 0
        if len(said["old"]):  # before the first phase nothing was trained on
            memory, steps = self._kept(context)
        own = {"new": said["new"], "old": said["old"], "memory": memory}
        context.state[STATE_OF_PHASE] = array_record(own)
        self.views(context)
        classes = data.store.n_classes
        counts = {
            "rows": context.class_counts("trained_on").astype(np.int32),
            "memory": np.bincount(data.store.y[memory], minlength=classes).astype(np.int32),
            "steps": np.array([steps], np.int32),
        }
        return RecordDict({SEEN: array_record(counts)})

    def _kept(self, context: ClientContext) -> tuple[Rows, int]:
        """Of the rows trained on in the last phase, its memory among them, those to keep; the steps that took."""
        rows = context.data.rows("trained_on")
        keep = min(self.settings.memory, len(rows))
        if keep in (0, len(rows)):
            return rows[:keep], 0
        own = self.settings
        candidates, steps = candidates_of(
            "trained_on", self.rule.needs, context, encoder=own.encoder, epochs=own.epochs
        )
        have = candidates.counts()
        per_class = apportion(have, torch.ones(len(have)), keep) if own.share == "equal" else None
        return rows[self.rule.select(candidates, keep, per_class).numpy()], steps
