"""What the two sides of FedIIC agree on: settings, and each client's losses by class before every round."""

from dataclasses import dataclass
from typing import ClassVar

from fedimb.contracts.base import Contract, Record, Values, counts
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Count, NonNegative, Positive, PositiveCount

CLASS_LOSSES = "x.class_losses"
GUIDE = "x.guide"
"""Sent with every train message: unit prototypes [C, p] and mean losses of the classes [C], float32."""
CLASS_LOSSES_OF = "fediic_losses"
"""Query: per class the sum of the rows' cross-entropy under the received model, and their number."""


@dataclass(frozen=True)
class FedIICSettings(Settings):
    """Settings of FedIIC.

    Attributes:
        intra: weight of the contrast inside the client.
        inter: weight of the contrast to the prototypes.
        exponent: power of a class's loss in the adjustment of the logits.
        floor: least temperature of the contrast inside the client.
        temperature: of the contrast to the prototypes.
        steps: gradient steps that spread the prototypes, in every round.
        lr: their learning rate.
        min_count: rows a class needs at a client to be reported; the loss of one row is that row's.
    """

    method: ClassVar[str] = "fediic"

    intra: NonNegative = 2.0
    inter: NonNegative = 2.0
    exponent: NonNegative = 0.25
    floor: Positive = 0.07
    temperature: Positive = 0.1
    steps: Count = 1000
    lr: Positive = 0.1
    min_count: PositiveCount = 10


FEDIIC = Contract(
    name="fediic",
    queries={
        CLASS_LOSSES_OF: (
            Record(
                CLASS_LOSSES,
                "arrays",
                "per class: number of rows, and the sum of their losses under the received model; left out below a "
                "minimum count",
                "aggregate",
                dtypes=("float32", "int64"),
                reveals="class_counts",
                about="class",
                shape="C + C",
                values={"sums": Values("C", low=0), "counts": counts("C")},
            ),
        ),
    },
    often={CLASS_LOSSES_OF: "before every round, from every client with data"},
)
register("contract", "fediic")(FEDIIC)
