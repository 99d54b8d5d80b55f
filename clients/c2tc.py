"""One-shot condensation at a site: centroids of groups of at least ``min_count`` people of one class."""

import math

import numpy as np
import torch
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client
from fedimb.contracts.c2tc import CENTROIDS, CENTROIDS_OF, C2tcSettings
from fedimb.errors import ConfigError
from fedimb.records import Arrays, array_record
from fedimb.registry import register
from fedimb.selection.condensation import Clusters, condense


@register("client", "c2tc")
class C2tcClient(Client):
    """One-shot condensation at a site.

    Args:
        settings: a `C2tcSettings`; or give its fields by name.
    """

    def __init__(self, settings: C2tcSettings | None = None, **fields: object) -> None:
        self.settings = C2tcSettings.of(settings, fields)

    def check(self, site: Site) -> None:
        """Refuse several labels per row."""
        if site.task != "multiclass":
            raise ConfigError(
                "strategy=c2tc makes groups of one class each, but these rows have several labels; use another strategy"
            )

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """The centroids of the rows that would be trained on, as the model gets them."""
        assert name == CENTROIDS_OF, name
        x, y = (part.cpu() for part in context.data.tensors("trained_on"))
        patients = context.data.store.patients
        people = None if patients is None else torch.from_numpy(np.asarray(patients)[context.data.rows("trained_on")])
        found = condense(x.flatten(1), y, math.ceil(self.settings.keep * len(y)), self.settings.min_count, people)
        return RecordDict({CENTROIDS: array_record(by_class(found, context.data.store.n_classes))})


def by_class(clusters: Clusters, n_classes: int) -> Arrays:
    """Clusters as arrays with the classes along the first axis.

    Returns:
        ``centres`` [C, m, d] float32, NaN where a class has fewer than m clusters; ``rows`` and ``people`` [C, m]
        int64, 0 there; m is the number of clusters of the class with most of them, at least 1.
    """
    held = torch.bincount(clusters.labels, minlength=n_classes).tolist()
    most = max([1, *held])
    centres = np.full((n_classes, most, clusters.centres.shape[1]), np.nan, dtype=np.float32)
    rows, people = (np.zeros((n_classes, most), dtype=np.int64) for _ in range(2))
    for label, count in enumerate(held):
        own = clusters.labels == label
        centres[label, :count] = clusters.centres[own].float().numpy()
        rows[label, :count], people[label, :count] = clusters.sizes[own].numpy(), clusters.people[own].numpy()
    return {"centres": centres, "rows": rows, "people": people}
