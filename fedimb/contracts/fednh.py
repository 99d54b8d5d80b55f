"""What the two sides of FedNH agree on: settings, and each client's class prototypes with its train reply."""

from dataclasses import dataclass
from typing import ClassVar

from fedimb.contracts.base import Contract, Record, Values, counts
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Positive, PositiveCount, Share

PROTOTYPES = "x.class_prototypes"


@dataclass(frozen=True)
class FedNHSettings(Settings):
    """Settings of FedNH.

    Attributes:
        rho: weight of the old prototype in the new one, [0, 1]; 1 freezes them.
        min_count: rows a class needs at a client to be reported; the prototype of one row is that row's direction.
        max_norm: largest L2 norm of a local step's gradient.
    """

    method: ClassVar[str] = "fednh"

    rho: Share = 0.9
    min_count: PositiveCount = 10
    max_norm: Positive = 10.0


FEDNH = Contract(
    name="fednh",
    train=(
        Record(
            PROTOTYPES,
            "arrays",
            "per class: number of rows, and that number times the direction of their mean feature; left out below a "
            "minimum count",
            "aggregate",
            dtypes=("float32", "int64"),
            reveals="class_counts",
            about="class",
            shape="C x d + C",
            values={"sums": Values("C x d", low="-rows", high="rows"), "counts": counts("C")},
        ),
    ),
    aggregation_weight="uniform",
)
register("contract", "fednh")(FEDNH)
