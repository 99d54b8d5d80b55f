"""What SCOPE's two halves agree on: three exchanges before training, all of class aggregates.

A profile is 28 C bytes per client: rows, and mean and variance of three scores, 4 bytes each, per class. The released
figures of the paper count 4 numbers per class, this description needs 7.
"""

from fedimb.contracts.base import Contract, Record
from fedimb.registry import register

CLASS_SUMS = "x.class_sums"
PROFILE = "x.profile"
KEPT = "x.kept"
PROTOTYPES = "x.prototypes"
CONSENSUS = "x.consensus"

SUMS = "scope_prototypes"
"""Query: per class the sum of unit embeddings; only where the encoder reads no text."""
PROFILES = "scope_profile"
"""Query: per class the number of rows and mean and variance of RS, DS and Sneg; sends the class vectors along."""
PRUNE = "scope_prune"
"""Query: prune, given the consensus; answers how many rows of each class were kept."""

SCOPE = Contract(
    name="scope",
    queries={
        SUMS: (
            Record(
                CLASS_SUMS,
                "arrays",
                "per class: the sum of the directions of its rows' embeddings; left out below a minimum count",
                "aggregate",
                dtypes=("float32",),
                about="class",
                shape="C x e",
            ),
        ),
        PROFILES: (
            Record(
                PROFILE,
                "arrays",
                "per class: number of rows, mean and variance of three scores; left out below a minimum count",
                "aggregate",
                dtypes=("int32", "float32"),
                reveals="class_counts",
                about="class",
                shape="7 x C",
            ),
        ),
        PRUNE: (
            Record(
                KEPT,
                "arrays",
                "per class: rows kept, rows dropped as anomalies, rows dropped as redundant",
                "aggregate",
                dtypes=("int32",),
                reveals="class_counts",
                about="class",
                shape="3 x C",
            ),
        ),
    },
    often=dict.fromkeys((SUMS, PROFILES, PRUNE), "once, before training"),
)
register("contract", "scope")(SCOPE)
