"""HeroCrystal at a site: train with the contrastive term on own rows and the server's, and show the head at the end."""

import torch
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext, Site
from fedimb.clientapp.private_weights import STATE
from fedimb.clients.base import Client
from fedimb.contracts.herocrystal import ANNOTATED, HEAD, HEADS, ROWS, SAMPLES, HeroCrystalSettings
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.training.objectives.class_mask import ClassMask
from fedimb.training.objectives.moon_dynamic import MoonDynamic
from fedimb.training.spec import TrainSpec


@register("client", "herocrystal")
class HeroCrystalClient(Client):
    """HeroCrystal at a site.

    Args:
        settings: a `HeroCrystalSettings`; or give its fields by name.
    """

    def __init__(self, settings: HeroCrystalSettings | None = None, **fields: object) -> None:
        self.settings = HeroCrystalSettings.of(settings, fields)

    def check(self, site: Site) -> None:
        """Refuse several labels per row."""
        if site.task != "multiclass":
            raise ConfigError(
                "strategy=herocrystal needs one class per row, but these have several labels; use another strategy"
            )

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """The contrastive term, the server's rows of classes that this site annotates, and no other class's logit."""
        own = self.settings
        objectives = spec.objectives
        if own.contrast != "none":
            objectives = (*objectives, MoonDynamic(own.mu, own.temperature, own.contrast))
        annotated: torch.Tensor | None = None
        if ANNOTATED in context.content:
            annotated = torch.from_numpy(arrays_of(context.content, ANNOTATED)["annotated"][context.client].copy()) > 0
            objectives = (*objectives, ClassMask(annotated))
        if ROWS in context.state:
            rows = arrays_of(context.state, ROWS)
            x, y = torch.from_numpy(rows["x"]), torch.from_numpy(rows["y"])
            kept = slice(None) if annotated is None else annotated[y]
            spec = spec.change(extra=(x[kept], y[kept]))
        return spec.change(objectives=objectives)

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Keep the received rows, or send the head; nothing before this client has trained one."""
        if name == SAMPLES:
            context.state[ROWS] = array_record(arrays_of(content, ROWS))
            return RecordDict()
        assert name == HEADS, name
        if STATE not in context.state:  # the model holds the run's initial head, which knows no row
            return RecordDict()
        head = context.model.head
        arrays = {"weight": head.weight, "bias": head.bias}
        return RecordDict({HEAD: array_record({k: v.detach().cpu().numpy().copy() for k, v in arrays.items()})})
