"""What the two sides of the Mahalanobis gate agree on: settings, and the masked sums that it is made of."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fedimb.contracts.base import Contract, Record, Values
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount, Range

SUMS = "x.gate_sums"
DISTANCES = "x.gate_distances"
GATE = "x.gate"
"""Sent to the clients: ``means`` [C, d] and ``root`` [d, d] float32 of the head."""

SUMS_OF = "mahalanobis_sums"
"""Query: per class rows and the sum of their features, and the sum of the features' products, masked."""
DISTANCES_OF = "mahalanobis_distances"
"""Query: per class how many rows lie in each bin of their squared distance to the class's mean, masked."""
BINS = 60


@dataclass(frozen=True)
class MahalanobisSettings(Settings):
    """Settings of the Mahalanobis gate.

    Attributes:
        quantile: share of a class's own training rows that its gate lets through, at least.
        shrinkage: of the covariance towards a multiple of the identity, 0 to 1.
        min_count: rows of all clients that a class needs for a gate; others have none.
    """

    method: ClassVar[str] = "mahalanobis"

    quantile: Annotated[float, Range(0, 1, low_allowed=False)] = 0.99
    shrinkage: Annotated[float, Range(0, 1)] = 0.1
    min_count: PositiveCount = 20


def _masked(key: str, content: str, shape: str) -> Record:
    return Record(
        key,
        "arrays",
        f"{content}; masked: only the sum can be read",
        "aggregate",
        dtypes=("uint64",),
        about="masked",
        shape=shape,
        values={"values": Values("m")},
    )


MAHALANOBIS = Contract(
    name="mahalanobis",
    queries={
        SUMS_OF: (
            _masked(
                SUMS, "per class rows and the sum of their features; the sum of the features' products", "C + C x d + t"
            ),
        ),
        DISTANCES_OF: (_masked(DISTANCES, "per class how many rows lie how far from the class's mean", f"C x {BINS}"),),
    },
    often={SUMS_OF: "once, after training", DISTANCES_OF: "once, after training"},
    most={SUMS_OF: 1, DISTANCES_OF: 1},
    replaces=1,
)
register("contract", "mahalanobis")(MAHALANOBIS)
