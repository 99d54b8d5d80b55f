"""The controls with the server's own rows, at a site: train on received rows, or report each class's features."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client
from fedimb.contracts.public import GAUSSIANS, GAUSSIANS_OF, ROWS, SHARE, PublicSettings
from fedimb.errors import ConfigError
from fedimb.generation.ccvr import class_gaussians
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.training.spec import TrainSpec


@register("client", "public")
class PublicClient(Client):
    """A control with the server's own rows, at a site.

    Args:
        settings: a `PublicSettings`; or give its fields by name.
    """

    forwards: Mapping[str, tuple[str, ...]] = MappingProxyType({GAUSSIANS_OF: ("trained_on",)})

    def __init__(self, settings: PublicSettings | None = None, **fields: object) -> None:
        self.settings = PublicSettings.of(settings, fields)

    def check(self, site: Site) -> None:
        """Refuse several labels per row."""
        if site.task != "multiclass":
            raise ConfigError(
                "strategy=public needs one class per row, but these have several labels; use another strategy"
            )

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """Train on the server's rows too, once they are received."""
        if "rows" not in context.state:
            return spec
        rows = arrays_of(context.state, "rows")
        spec = spec.change(extra=(torch.from_numpy(rows["x"]), torch.from_numpy(rows["y"])))
        if self.settings.steps == "equal":
            return spec
        local = context.config.local
        together = len(context.data.rows("trained_on")) + len(rows["y"])
        return spec.change(steps=local.epochs * -(-together // local.batch_size))

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Keep the received rows, or report class Gaussians."""
        if name == SHARE:
            context.state["rows"] = array_record(arrays_of(content, ROWS))
            return RecordDict()
        assert name == GAUSSIANS_OF, name
        features = context.forward("trained_on")[0].cpu()
        labels = context.data.tensors("trained_on")[1].cpu()
        found = class_gaussians(features, labels, len(context.data.store.class_names), self.settings.min_count)
        return RecordDict(
            {
                GAUSSIANS: array_record(
                    {
                        "counts": found.counts.numpy(),
                        "mean": found.mean.numpy().astype(np.float32),
                        "covariance": found.covariance.numpy().astype(np.float32),
                    }
                )
            }
        )
