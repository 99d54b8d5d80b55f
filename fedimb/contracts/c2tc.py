"""What the two sides of one-shot condensation (C2TC) agree on: settings, and the centroids each client sends once."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values, counts
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount, Range

CENTROIDS = "x.centroids"
CENTROIDS_OF = "c2tc_centroids"
"""Query: centroids of clusters of the client's rows, each of one class and of at least min_count people."""


@dataclass(frozen=True)
class C2tcSettings(Settings):
    """Settings of one-shot condensation.

    Attributes:
        keep: centroids over training rows, at most, (0, 1]; the floor leaves fewer.
        min_count: people (rows, if the source names no patients) in every cluster; a class of fewer sends nothing.
        use: only: the model is trained on centroids at the server, no client trains; init: the rounds start from it.
        epochs: passes over the centroids, each counted as often as its cluster has rows if weighted.
        weighted: whether a centroid counts as many times as its cluster has rows; false: once.
    """

    method: ClassVar[str] = "c2tc"

    keep: Annotated[float, Range(0, 1, low_allowed=False)] = 0.05
    min_count: Annotated[int, Range(2)] = 10
    use: Literal["only", "init"] = "only"
    epochs: PositiveCount = 60
    weighted: bool = True


C2TC = Contract(
    name="c2tc",
    queries={
        CENTROIDS_OF: (
            Record(
                CENTROIDS,
                "arrays",
                "per class: means of groups of alike patients' rows, how many rows and people each group has; groups "
                "below a minimum count are not made",
                "aggregate",
                dtypes=("float32", "int64"),
                reveals="class_counts",
                about="class",
                shape="C x m x F + 2 x C x m",
                values={
                    "centres": Values("C x m x F", missing=True),
                    "rows": counts("C x m"),
                    "people": counts("C x m"),
                },
            ),
        ),
    },
    often={CENTROIDS_OF: "once, before training"},
    most={CENTROIDS_OF: 1},
    replaces=1,
)
register("contract", "c2tc")(C2TC)
