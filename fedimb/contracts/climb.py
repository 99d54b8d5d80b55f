"""What the two sides of CLIMB agree on: settings, and one exchange of each client's loss before every primal phase."""

from dataclasses import dataclass
from typing import ClassVar

from fedimb.contracts.base import Contract, Record, Values
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import NonNegative, Positive, PositiveCount

LOSS = "x.loss"
LOSSES = "climb_loss"
"""Query: the mean loss of the received model over the client's training rows."""


@dataclass(frozen=True)
class ClimbSettings(Settings):
    """Settings of CLIMB.

    Attributes:
        dual_lr: step size eta of the dual variables; 0 is FedAvg with equal clients.
        tolerance: epsilon: how far above the mean a client's loss may be; 1 in the paper's code, where losses are sums.
        dual_max: largest dual variable.
        phase: training rounds between two dual steps.
        server_lr: step size of the server along the weighted sum of updates.
    """

    method: ClassVar[str] = "climb"

    dual_lr: NonNegative = 1.0
    tolerance: NonNegative = 0.05
    dual_max: Positive = 100.0
    phase: PositiveCount = 5
    server_lr: Positive = 1.0


CLIMB = Contract(
    name="climb",
    queries={
        LOSSES: (
            Record(
                LOSS,
                "arrays",
                "the mean loss of the received model over the site's training rows, and their number",
                "aggregate",
                dtypes=("float64", "int64"),
                shape="2",
                values={"mean": Values("1", low=0, missing=True), "rows": Values("1", low=0, high="rows", whole=True)},
            ),
        ),
    },
    often={LOSSES: "before every phase of training rounds, from every client with data"},
    aggregation_weight="uniform",
)
register("contract", "climb")(CLIMB)
