"""What the halves of the controls with the server's own rows agree on: rows sent down, class Gaussians sent up."""

from fedimb.contracts.base import Contract, Record
from fedimb.registry import register

ROWS = "x.public_rows"
"""To the clients: ``x`` [n, *shape] float32 and ``y`` [n] int64, the server's rows."""
GAUSSIANS = "x.class_gaussians"

SHARE = "public_share"
"""Query: keep the server's rows and train on them too; answers nothing."""
GAUSSIANS_OF = "public_gaussians"
"""Query: per class rows, mean and covariance of penultimate features; carries the model."""

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
            ),
        ),
    },
    often={SHARE: "once, before training", GAUSSIANS_OF: "once, after training"},
    aggregation_weight="real",
)
register("contract", "public")(PUBLIC)
