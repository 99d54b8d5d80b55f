"""A gate by Mahalanobis distance around the trained head: a row far from the predicted class goes to the next one.

From the blood-cell system of arXiv 2603.16249, which falls back to another class where a row's Mahalanobis distance to
the predicted one is above that class's limit. Its features and limits are not known here; ours: the model's features,
one covariance of all classes shrunk towards a multiple of the identity, and as limit of a class the quantile of its own
training rows' distances. After training the clients add up their features once, then count how far their rows lie, in
bins whose upper edges are the limits to choose from; both under masks. The head is ``model.head=gated``.
"""

import json
from typing import Any

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.contracts.mahalanobis import BINS, DISTANCES, DISTANCES_OF, GATE, SUMS, SUMS_OF, MahalanobisSettings
from fedimb.discriminant.gate import edges_of, gaussians, limits
from fedimb.errors import ConfigError
from fedimb.models.base import buffers_of
from fedimb.models.heads import NEVER_FAR
from fedimb.privacy.secure_sum import from_fixed
from fedimb.records import array_record
from fedimb.registry import register
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Replace
from fedimb.strategies.base import KeepsWeights, Program, masked_total


@register("strategy", "mahalanobis", needs_head="gated", reads_labels=True)
class Mahalanobis(KeepsWeights):
    """A gate by Mahalanobis distance around the trained head.

    Args:
        inner: the aggregator or method that trains.
        settings: a `MahalanobisSettings`; or give its fields by name: ``Mahalanobis(FedAvg(), quantile=0.95)``.
    """

    def __init__(self, inner: Strategy, settings: MahalanobisSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = MahalanobisSettings.of(settings, fields)

    def check_server(self, server: Server) -> None:
        """Refuse noise on what must stay 0, buffers that the server lacks, and a masked sum over one client."""
        if server.clips():
            raise ConfigError(
                "strategy=mahalanobis: privacy.clip bounds what an update shows, and sums of features are beside it: "
                "set privacy.clip=null"
            )
        if buffers := buffers_of(server.model()):
            raise ConfigError(
                f"strategy=mahalanobis: distances are measured at the clients with buffers of their own rounds "
                f"({next(iter(buffers))}): use a model without BatchNorm (norm=group)"
            )
        if len(server.holders()) < 2:
            raise ConfigError("strategy=mahalanobis: masks hide nothing with one client, whose sums they then are")

    def program(self, run: RunContext) -> Program:
        """Train; then sums, distances and the gate."""
        server = run.server
        if server is None:
            raise ConfigError(
                "strategy=mahalanobis needs fedimb's own server: run it with fedimb, not in a plain ServerApp"
            )
        yield from self.kept_program(run)
        sums = yield from masked_total(run, server, Query(SUMS_OF, model="global"), SUMS)
        width = server.model().head.in_features
        counts, means, root = gaussians(from_fixed(sums), run.n_classes, width, self.settings.shrinkage)
        gate = {"means": means.astype(np.float32), "root": root.astype(np.float32)}
        query = Query(DISTANCES_OF, RecordDict({GATE: array_record(gate)}), model="global")
        found = (yield from masked_total(run, server, query, DISTANCES)).reshape(run.n_classes, BINS)
        reach = limits(found, edges_of(width, BINS), self.settings.quantile, self.settings.min_count)
        shown = {
            name: None if limit == NEVER_FAR else float(limit)
            for name, limit in zip(map(str, run.class_names), reach, strict=True)
        }
        run.artifact(
            "mahalanobis.json", (json.dumps({"rows": counts.tolist(), "limits": shown}, indent=1) + "\n").encode()
        )
        made = {f"head.{name}": value for name, value in gate.items()} | {"head.reach": reach.astype(np.float32)}
        yield Replace(self.aggregated(server) | made)
