"""FedProto: clients keep their models, and share the mean features of each class.

Tan et al., "FedProto: Federated Prototype Learning across Heterogeneous Clients", AAAI 2022. No weight leaves a client
(``clients.private=['*']``), so that clients may train any networks, if their features have the same width. Prototypes
are the means over all rows of a class that were reported in a round (eq. 6); a class that nobody reported keeps its
last one. Predictions are of each client's own head; the paper also compares features with prototypes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedimb.contracts.fedproto import FEATURE_SUMS, PROTOTYPES, FedProtoSettings
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Reply
from fedimb.strategies.base import Method, sent_along


@register(
    "strategy",
    "fedproto",
    reveals_counts=True,
    own_models=("kinds", "private"),
    needs_private=("*",),
    innermost=True,
)
class FedProto(Method):
    """FedProto: clients keep their models, and share the mean features of each class.

    Args:
        inner: the aggregator, which has nothing to average.
        settings: a `FedProtoSettings`; or give its fields by name: ``FedProto(FedAvg(), weight=0.1)``.
    """

    def __init__(self, inner: Strategy, settings: FedProtoSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = FedProtoSettings.of(settings, fields)

    def check_server(self, server: Server) -> None:
        """Refuse networks whose features differ in width, and clipped updates."""
        widths = {kind: model.head.in_features for kind, model in server.networks().items()}
        if len(set(widths.values())) > 1:
            shown = ", ".join(f"{kind} {width}" for kind, width in widths.items())
            raise ConfigError(
                f"strategy.fedproto compares features of all clients, and their widths differ ({shown}): give the "
                "networks of clients.models a last layer of the same width"
            )
        if server.clips():
            raise ConfigError("strategy.fedproto: prototypes leave without privacy.clip and its noise; set it to null")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages, with the prototypes once there are some."""
        messages = super().configure_train(server_round, arrays, config, grid)
        if "prototypes" not in self.memory:
            return messages
        prototypes, known = np.asarray(self.memory["prototypes"]), np.asarray(self.memory["known"])
        return sent_along(messages, PROTOTYPES, array_record({"prototypes": prototypes, "known": known}))

    def before_aggregation(self, server_round: int, replies: Sequence[Reply]) -> None:
        """New prototypes of the classes that were reported."""
        found = [arrays_of(reply.content, FEATURE_SUMS) for reply in replies if FEATURE_SUMS in reply.content]
        if not found:
            return
        sums = np.sum([one["sums"].astype(np.float64) for one in found], axis=0)
        counts = np.sum([one["counts"] for one in found], axis=0)
        before = np.asarray(self.memory.get("prototypes", np.zeros(sums.shape)), np.float64)
        known = np.asarray(self.memory.get("known", np.zeros(len(counts))), bool) | (counts > 0)
        new = np.where((counts > 0)[:, None], sums / np.maximum(counts, 1)[:, None], before)
        self.memory["prototypes"], self.memory["known"] = new.astype(np.float32), known.astype(np.uint8)
