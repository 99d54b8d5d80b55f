"""What the two sides of RUCR agree on: settings, class sums of features before every round, and re-trained heads."""

from dataclasses import dataclass
from typing import ClassVar

from fedimb.contracts.base import Contract, Record, Values
from fedimb.contracts.class_sums import class_sums
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Count, NonNegative, Positive, PositiveCount

PROTOTYPES = "x.prototypes"
HEAD = "x.head"
UNIFIED = "x.unified"
"""Sent with every train message and with `HEAD_OF`: the unified prototypes [C, d] float32, 0 where there is none."""
PROTOTYPES_OF = "rucr_prototypes"
"""Query: per class the sum of the rows' features under the received model, and their number."""
HEAD_OF = "rucr_head"
"""Query: re-train the received model's head on mixtures of the prototypes and the client's features."""


@dataclass(frozen=True)
class RucrSettings(Settings):
    """Settings of RUCR.

    Attributes:
        beta: weight of the contrast with the prototypes.
        temperature: of its cosines.
        per_class: mixtures of each class for a client's head.
        head_epochs: epochs over them; 0: the head is not re-trained.
        head_lr: learning rate.
        head_batch: batch size.
        min_count: rows a class needs at a client to be reported; of one row the sum is that row's feature.
        max_norm: largest L2 norm of a local step's gradient.
    """

    method: ClassVar[str] = "rucr"

    beta: NonNegative = 0.15
    temperature: Positive = 1.0
    per_class: PositiveCount = 100
    head_epochs: Count = 50
    head_lr: Positive = 0.01
    head_batch: PositiveCount = 256
    min_count: PositiveCount = 10
    max_norm: Positive = 10.0


RUCR = Contract(
    name="rucr",
    queries={
        PROTOTYPES_OF: (class_sums(PROTOTYPES),),
        HEAD_OF: (
            Record(
                HEAD,
                "arrays",
                "classifier re-trained on mixtures of class prototypes and the site's features, and its number of rows",
                "model",
                dtypes=("float32", "int64"),
                shape="C x d + C + 1",
                values={
                    "weight": Values("C x d"),
                    "bias": Values("C"),
                    "rows": Values("1", low=0, high="rows", whole=True),
                },
            ),
        ),
    },
    often={
        PROTOTYPES_OF: "before every round and after the last, from every client with data",
        HEAD_OF: "once, after the last round, from every client with data",
    },
    replaces=1,
)
register("contract", "rucr")(RUCR)
