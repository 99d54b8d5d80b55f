"""What the halves of active learning agree on: ask, label, count; once per cycle."""

from fedimb.contracts.base import Contract, Record
from fedimb.registry import register

CYCLE = "x.cycle"
"""To the clients: ``cycle``, the first cycle's and later budgets; ``gamma`` where the server has it."""
PROTOTYPES = "x.prototypes"
BALANCE = "x.balance"
SUMS = "x.class_sums"
CHOICE = "x.choice"
LABELLED = "x.labelled"


def active_contract(name: str) -> Contract:
    """The contract of a method that labels in cycles; its queries begin with the method's name.

    ``_start``: choose the first rows at random. ``_balance``: how evenly the global model treats the labelled classes.
    ``_prototypes``: per class the sum of labelled rows' unit features. ``_choose``: choose the next rows.
    ``_collect``: take in what has been labelled, and count.
    """
    counts = Record(
        LABELLED,
        "arrays",
        "labelled rows per class; rows still in the pool; whether all answers are in; of the rows labelled last, how "
        "many of each class there are and how many the prototypes had guessed",
        "aggregate",
        dtypes=("int32",),
        reveals="class_counts",
        about="class",
        shape="3 x C + 2",
    )
    choice = Record(
        CHOICE,
        "arrays",
        "rows asked for; the model that was asked; how unlike the global and the local model are",
        "operational",
        dtypes=("int32", "float32"),
        shape="3",
    )
    return Contract(
        name=name,
        queries={
            f"{name}_start": (choice,),
            f"{name}_balance": (
                Record(
                    BALANCE,
                    "arrays",
                    "smallest over largest share that the global model gives a labelled class",
                    "aggregate",
                    dtypes=("float32",),
                    max_bytes=4,
                    shape="1",
                ),
            ),
            f"{name}_prototypes": (
                Record(
                    SUMS,
                    "arrays",
                    "per class: sum of its labelled rows' directions",
                    "aggregate",
                    ("float32",),
                    about="class",
                    shape="C x d",
                ),
            ),
            f"{name}_choose": (choice,),
            f"{name}_collect": (counts,),
        },
        often={f"{name}_start": "once, before training"}
        | {f"{name}_{what}": "once in each labelling cycle" for what in ("balance", "prototypes", "choose")}
        | {f"{name}_collect": "once in each labelling cycle, and again while people label"},
    )


register("contract", "active")(active_contract("active"))
