"""What the two sides of CReFF agree on: settings, and each client's class gradients before every round."""

from dataclasses import dataclass
from typing import ClassVar

from fedimb.contracts.base import Contract, Record, Values
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Count, Positive, PositiveCount

GRADIENTS = "x.creff_gradients"
HEAD = "x.head"
GRADIENTS_OF = "creff_gradients"
"""Query: per class the gradient, in the head that the message carries, of the mean loss of its rows."""


@dataclass(frozen=True)
class CreffSettings(Settings):
    """Settings of CReFF.

    Attributes:
        per_class: synthetic features of each class.
        match_steps: gradient steps on the features in each round.
        match_lr: their learning rate.
        head_epochs: epochs of the new head over the features.
        head_lr: its learning rate.
        head_batch: its batch size.
        min_count: rows a class needs at a client to be reported; of a single row the gradient is that row's feature.
    """

    method: ClassVar[str] = "creff"

    per_class: PositiveCount = 100
    match_steps: Count = 100
    match_lr: Positive = 0.1
    head_epochs: PositiveCount = 300
    head_lr: Positive = 0.01
    head_batch: PositiveCount = 32
    min_count: PositiveCount = 10


CREFF = Contract(
    name="creff",
    queries={
        GRADIENTS_OF: (
            Record(
                GRADIENTS,
                "arrays",
                "per class: gradient of its rows' mean loss in the classifier (of a single row: that row's feature up "
                "to a factor); left out below a minimum count",
                "aggregate",
                dtypes=("float32",),
                about="class",
                shape="C x C x d + C x C",
                values={"weight": Values("C x C x d"), "bias": Values("C x C", low=-1, high=1)},
            ),
        ),
    },
    often={GRADIENTS_OF: "before every round, from every client with data"},
    replaces=1,
)
register("contract", "creff")(CREFF)
