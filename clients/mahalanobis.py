"""The Mahalanobis gate at a site: sums of features, and how far each class's rows lie from its mean; masked."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client, masked
from fedimb.contracts.mahalanobis import BINS, DISTANCES, DISTANCES_OF, GATE, SUMS, SUMS_OF, MahalanobisSettings
from fedimb.discriminant.gate import distance_counts, edges_of, feature_sums
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.registry import register

VIEW = "trained_on"


@register("client", "mahalanobis")
class MahalanobisClient(Client):
    """The Mahalanobis gate at a site.

    Args:
        settings: a `MahalanobisSettings`; or give its fields by name.
    """

    forwards: Mapping[str, tuple[str, ...]] = MappingProxyType({SUMS_OF: (VIEW,), DISTANCES_OF: (VIEW,)})

    def __init__(self, settings: MahalanobisSettings | None = None, **fields: object) -> None:
        self.settings = MahalanobisSettings.of(settings, fields)

    def check(self, site: Site) -> None:
        """Refuse several labels per row."""
        if site.task != "multiclass":
            raise ConfigError(
                "strategy=mahalanobis compares rows with their one class, but these rows have several labels; use "
                "another strategy"
            )

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Sums over the rows trained on whose class is known, or their distances in bins."""
        classes = context.data.store.n_classes
        x = context.forward(VIEW)[0].cpu().numpy().astype(np.float64)
        y = context.data.tensors(VIEW)[1].cpu().numpy()
        known = y < classes  # coarse labels name no class
        x, y = x[known], y[known]
        if name == SUMS_OF:
            return RecordDict({SUMS: array_record({"values": masked(feature_sums(x, y, classes), content, context)})})
        assert name == DISTANCES_OF, name
        gate = arrays_of(content, GATE)
        means, root = (gate[name].astype(np.float64) for name in ("means", "root"))
        counts = distance_counts(x, y, means, root, edges_of(x.shape[1], BINS))
        return RecordDict({DISTANCES: array_record({"values": masked(counts.ravel(), content, context)})})
