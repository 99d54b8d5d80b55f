"""What the two sides of FedDF agree on: settings, the server's rows, and what each client's model says of them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fedimb.contracts.base import Contract
from fedimb.contracts.public_scores import SAID
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Count, NonNegative, Positive, PositiveCount, Range

SHOW = "feddf_rows"
"""Query: keep these rows, see `fedimb.contracts.public_scores.ROWS`."""


@dataclass(frozen=True)
class FedDFSettings(Settings):
    """Settings of FedDF.

    Attributes:
        epochs: passes over the server's rows in which the mean model of each network is taught, every round.
        lr: learning rate of that, with Adam.
        batch_size: rows of a step of it.
        agreement: leave out rows whose class not every client that annotates it confirms.
        sharpening: temperature of the taught distribution; 1: as the clients say.
        entropy: power of (1 - entropy of the taught distribution, relative to its largest) that a row weighs; 0: all
            rows weigh alike.
        min_score: rows whose largest probability is at most this teach nothing.
    """

    method: ClassVar[str] = "feddf"

    epochs: Count = 5
    lr: Positive = 0.001
    batch_size: PositiveCount = 32
    agreement: bool = False
    sharpening: Positive = 1.0
    entropy: NonNegative = 0.0
    min_score: Annotated[float, Range(0, 1)] = 0.0


FEDDF = Contract(
    name="feddf",
    train=(SAID,),
    queries={SHOW: ()},
    often={SHOW: "once, before training"},
    most={SHOW: 1},
)
register("contract", "feddf")(FEDDF)
