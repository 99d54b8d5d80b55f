"""What server and clients agree on in active learning: settings, and the messages of each labelling cycle."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values, counts, flag
from fedimb.contracts.settings import Settings
from fedimb.data.views import QueryView
from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount, Range, Share

Ask = Literal["global", "local", "adaptive"]

CYCLE = "x.cycle"
"""Sent to the clients: ``cycle``, the budget of the first and of later cycles, and ``gamma`` once the server has it."""
PROTOTYPES = "x.prototypes"
BALANCE = "x.balance"
SUMS = "x.class_sums"
CHOICE = "x.choice"
LABELLED = "x.labelled"


@dataclass(frozen=True)
class ActiveSettings(Settings):
    """Settings of active learning.

    Attributes:
        query: {name: ..., ...} of the kind query: the rule that chooses the rows.
        which: the model whose uncertainty counts, for rules that can use either: global, local (trained on the
            client's labelled rows only), or adaptive (FairFAL's switch).
        cycles: how often rows are labelled, the first time at random; divides rounds.
        budget: rows each client has labelled per cycle.
        first: rows each client has labelled in the first cycle; null: budget.
        restart: true: fresh weights in every cycle; false: continue training.
        share_prototypes: clients pool class prototypes, so that a client can look for a class it has not labelled.
        oracle: who labels: {name: simulated}, or {name: worklist, ...} for people.
        local_epochs: most epochs of the local model.
        local_stop: the local model is trained until it classifies this share of its rows correctly, [0, 1].
        query_view: train, or mismatched: rules look at another picture of the same class, a mistake of the released
            code; in simulation only.
        kcfu: KAFAL's local training, with any rule: balanced softmax over the client's own counts, and distillation
            from the received model.
    """

    method: ClassVar[str] = "active"

    query: Mapping[str, Any] = field(default_factory=lambda: {"name": "random"})
    which: Ask = "global"
    cycles: PositiveCount = 5
    budget: PositiveCount = 10
    first: Annotated[int | None, Range(1)] = None
    restart: bool = True
    share_prototypes: bool = False
    oracle: Mapping[str, Any] = field(default_factory=lambda: {"name": "simulated"})
    local_epochs: PositiveCount = 50
    local_stop: Share = 0.99
    query_view: QueryView = "train"
    kcfu: bool = False


def active_contract(name: str) -> Contract:
    """The contract of a method that labels in cycles; its queries begin with the method's name.

    ``_start``: choose the first rows at random. ``_balance``: how evenly the global model treats the labelled classes.
    ``_prototypes``: per class the sum of labelled rows' unit features. ``_choose``: choose the next rows.
    ``_collect``: read the new labels, and count.
    """
    labelled = Record(
        LABELLED,
        "arrays",
        "labelled rows per class; rows still in the pool; whether all answers are in; of the rows labelled last, how "
        "many of each class there are and how many the prototypes had guessed",
        "aggregate",
        dtypes=("int32",),
        reveals="class_counts",
        about="class",
        shape="3 x C + 2",
        values={
            "labelled": counts("C", "labels"),
            "pool": counts("1"),
            "ready": flag(),
            "guessed": counts("C"),
            "judged": counts("C"),
        },
    )
    choice = Record(
        CHOICE,
        "arrays",
        "rows asked for; the model that was asked; how unlike the global and the local model are",
        "operational",
        dtypes=("int32", "float32"),
        shape="3",
        values={"asked": counts("1"), "local": flag(), "distance": Values("1", low=0, high=1, missing=True)},
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
                    values={"balance": Values("1", low=0, high=1, missing=True)},
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
                    values={"sums": Values("C x d", low="-rows", high="rows")},
                ),
            ),
            f"{name}_choose": (choice,),
            f"{name}_collect": (labelled,),
        },
        often={f"{name}_start": "once, before training"}
        | {f"{name}_{what}": "once in each labelling cycle" for what in ("balance", "prototypes", "choose")}
        | {f"{name}_collect": "once in each labelling cycle, and again while people label"},
        most={f"{name}_start": 1}
        | {f"{name}_{what}": "cycles" for what in ("balance", "prototypes", "choose", "collect")},
        repeats="cycles",
    )


register("contract", "active")(active_contract("active"))
