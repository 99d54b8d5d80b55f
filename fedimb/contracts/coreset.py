"""What the halves of the coreset baselines agree on: class means where a rule compares with others, the choice."""

from fedimb.contracts.base import Contract, Record
from fedimb.registry import register

MEANS = "x.class_means"
CENTRES = "x.centres"
CHOSEN = "x.chosen"

CENTRES_OF = "coreset_centres"
"""Query: per class the mean of the penultimate features of its rows; for rules that need ``centres``."""
CHOOSE = "coreset_choose"
"""Query: choose rows; answers how many of each class were kept and held, and the local steps spent on choosing."""

CORESET = Contract(
    name="coreset",
    queries={
        CENTRES_OF: (
            Record(
                MEANS,
                "arrays",
                "per class: mean of its rows' features",
                "aggregate",
                dtypes=("float32",),
                about="class",
                shape="C x d",
            ),
        ),
        CHOOSE: (
            Record(
                CHOSEN,
                "arrays",
                "per class: rows kept and rows held; local steps spent on choosing",
                "aggregate",
                dtypes=("int32",),
                reveals="class_counts",
                about="class",
                shape="2 x C + 1",
            ),
        ),
    },
    often=dict.fromkeys((CENTRES_OF, CHOOSE), "once, before training"),
)
register("contract", "coreset")(CORESET)
