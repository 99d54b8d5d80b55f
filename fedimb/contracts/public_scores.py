"""What clients say of the server's own rows: shared by the methods that distil, or weigh models, by them."""

from fedimb.contracts.base import Record, Values

ROWS = "x.public_rows"
"""Sent with a query, and kept: x [P, *shape] float32, and y [P] int64 if clients are to learn the labels."""
ANNOTATED = "x.annotated"
"""Sent with every train message if clients annotate different classes: [K, C] uint8."""
SCORES = "x.public_scores"

SAID = Record(
    SCORES,
    "arrays",
    "what this site's model says of each of the server's rows, a number per row and class",
    "model",
    dtypes=("float32",),
    shape="P x C",
    values={"logits": Values("P x C")},
    optional=True,
)
"""logits [P, C]. Whoever has them can ask the same of the model as with its weights, on these rows: above all whether a
patient was trained on, if the patient is alike to one of them. Absent from a client with too few rows, and from one
whose training diverged."""
