"""What server and clients agree on for the controls with the server's own rows: settings, rows down, Gaussians up."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values, counts
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Positive, PositiveCount, Range

Use = Literal["only", "init", "client", "share", "head", "ccvr"]

ROWS = "x.public_rows"
"""Sent to the clients: ``x`` [n, *shape] float32 and ``y`` [n] int64, the server's rows."""
GAUSSIANS = "x.class_gaussians"

SHARE = "public_share"
"""Query: keep the server's rows and train on them too; the reply is empty."""
GAUSSIANS_OF = "public_gaussians"
"""Query: number of rows per class, mean and covariance of penultimate features; the message carries the model."""


@dataclass(frozen=True)
class PublicSettings(Settings):
    """Settings of a control with the server's own rows.

    Attributes:
        use: what is done with the rows: only, init, client, share, head (all need data.public); ccvr needs none.
        epochs: only, init: passes over the rows before training.
        local_epochs: client: passes over the rows in each round.
        weight: client: weight of the server's update in the mean with the clients' updates; null: its number of rows.
        steps: share: equal: as many local steps as without the rows; native: epochs over both.
        head_epochs: head, ccvr: passes over the rows or virtual features the head is retrained on.
        head_lr: head, ccvr: learning rate, features scaled to length 1 on average.
        per_class: ccvr: virtual features of each class.
        nonnegative: ccvr: cut virtual features below at 0, for models whose features come out of a ReLU.
        min_count: ccvr: rows a class needs at a client to be reported.
    """

    method: ClassVar[str] = "public"

    use: Use = "init"
    epochs: PositiveCount = 60
    local_epochs: PositiveCount = 5
    weight: Annotated[float | None, Range(0)] = None
    steps: Literal["equal", "native"] = "equal"
    head_epochs: PositiveCount = 20
    head_lr: Positive = 1.0
    per_class: PositiveCount = 200
    nonnegative: bool = False
    min_count: PositiveCount = 1


PUBLIC = Contract(
    name="public",
    queries={
        SHARE: (),
        GAUSSIANS_OF: (
            Record(
                GAUSSIANS,
                "arrays",
                "per class: number of rows, mean and covariance of their features; left out below a minimum count",
                "aggregate",
                dtypes=("int64", "float32"),
                reveals="class_counts",
                about="class",
                shape="C + C x d + C x d x d",
                values={"counts": counts("C"), "mean": Values("C x d"), "covariance": Values("C x d x d")},
            ),
        ),
    },
    often={SHARE: "once, before training", GAUSSIANS_OF: "once, after training"},
    most={SHARE: 1, GAUSSIANS_OF: 1},
    replaces=1,
    aggregation_weight="real",
    adds_rows=True,
)
register("contract", "public")(PUBLIC)
