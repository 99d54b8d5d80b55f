"""What the two sides of FedReLa agree on: settings, and the one exchange after which clients train on other labels."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fedimb.contracts.base import Contract, Record, counts
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Positive, PositiveCount, Range

MOVED = "x.relabelled"
RELABEL = "fedrela_relabel"
"""Query: choose new labels for the rows trained on from now on, under the received model."""


@dataclass(frozen=True)
class FedReLaSettings(Settings):
    """Settings of FedReLa.

    Attributes:
        after: share of the rounds after which clients choose new labels, rounded down; .8 and .9 in the paper's code.
        top_percent: percent of a client's rows that exceed the threshold of a class.
        absent_target: whether rows may move to a class that the client lacks, which is the strongest target then.
        lr_factor: factor on the local learning rate afterwards.
        min_count: rows a class needs at a client for the number of its rows moved to be reported.
    """

    method: ClassVar[str] = "fedrela"

    after: Annotated[float, Range(0, 1)] = 0.8
    top_percent: Annotated[float, Range(0, 100)] = 5.0
    absent_target: bool = True
    lr_factor: Positive = 0.1
    min_count: PositiveCount = 10


FEDRELA = Contract(
    name="fedrela",
    queries={
        RELABEL: (
            Record(
                MOVED,
                "arrays",
                "per class and other class: rows of the first that are trained on as the second from now on; left out "
                "below a minimum count",
                "aggregate",
                dtypes=("int64",),
                about="class",
                shape="C x C",
                values={"moved": counts("C x C")},
            ),
        ),
    },
    often={RELABEL: "once, after the share `after` of the rounds, from every client with data"},
)
register("contract", "fedrela")(FEDRELA)
