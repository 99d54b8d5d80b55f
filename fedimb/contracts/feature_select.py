"""What the two sides of feature selection agree on: settings, pooled counts, and the columns that stay."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values, counts
from fedimb.contracts.settings import Settings
from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount, Range

COUNTS = "x.feature_counts"
SUMS = "x.column_sums"
SCALE = "x.column_scale"
"""Sent to the clients: ``mean`` and ``deviation`` [F] float64 of the columns over all rows, between which bins lie."""
KEPT = "x.kept_columns"
"""Sent to the clients: ``kept`` [F] int64, 1 for a column that stays."""

SUMS_OF = "feature_select_sums"
"""Query: per column the rows, their sum and sum of squares, in units of 2**-20."""
MASKED_SUMS_OF = "feature_select_masked_sums"
"""Query: the same under masks that cancel in the sum."""
COUNTS_OF = "feature_select_counts"
"""Query: rows of each class in each bin of each column."""
MASKED_COUNTS_OF = "feature_select_masked_counts"
"""Query: the same under masks that cancel in the sum."""
KEEP = "feature_select_keep"
"""Query: the columns to train on from now on; the reply is empty."""
BINS = 10
"""Bins of a column: between the deciles of a normal distribution with the column's mean and deviation."""


@dataclass(frozen=True)
class FeatureSelectSettings(Settings):
    """Settings of feature selection.

    Attributes:
        rule: mi: mutual information with the class, from counts before training; rfe: columns are dropped in steps, by
            the size of their weights in the model trained so far.
        keep: share of the columns that stay, rounded up.
        secure: mi: the server learns only sums over all clients; false: each client's counts.
        min_count: mi: rows (secure: of all clients) that a class needs for its counts to be used.
        warmup: rfe: rounds before each step, part of rounds.
        steps: rfe: number of steps.
    """

    method: ClassVar[str] = "feature_select"

    rule: Literal["mi", "rfe"] = "mi"
    keep: Annotated[float, Range(0, 1, low_allowed=False)] = 0.5
    secure: bool = True
    min_count: PositiveCount = 5
    warmup: PositiveCount = 1
    steps: Annotated[int, Range(1, 10)] = 2

    def __post_init__(self) -> None:
        """Refuse to keep everything, which selects nothing."""
        super().__post_init__()
        if self.keep == 1:
            raise ConfigError("strategy.feature_select.keep=1 drops no column: give a share below 1, or leave it out")


def counts_in_clear(settings: Mapping[str, Any]) -> bool:
    """Whether a run with these settings sends figures of single clients."""
    return settings.get("rule", "mi") == "mi" and not settings.get("secure", True)


def counts_masked(settings: Mapping[str, Any]) -> bool:
    """Whether it sends them under masks."""
    return settings.get("rule", "mi") == "mi" and bool(settings.get("secure", True))


def _hidden(record: Record, content: str) -> Record:
    """The same record under masks: only the sum over all clients can be read, and a single value may be anything."""
    values = {name: Values(one.shape) for name, one in (record.values or {}).items()}
    text = f"{content}; masked: only the sum can be read"
    return replace(record, content=text, dtypes=("uint64",), reveals=None, about="masked", values=values)


_SUMS = Record(
    SUMS,
    "arrays",
    "per column: rows, their sum and sum of squares, to lay out bins alike at all sites",
    "aggregate",
    dtypes=("int64",),
    shape="3 x F",
    values={"sums": Values("3 x F")},
)
_COUNTS = Record(
    COUNTS,
    "arrays",
    "per class: how many of its rows lie in each of ten bins of each column; left out below a minimum count",
    "aggregate",
    dtypes=("int64",),
    reveals="class_counts",
    about="class",
    shape=f"C x F x {BINS}",
    values={"counts": counts("C x F x b", most=None)},
)

FEATURE_SELECT = Contract(
    name="feature_select",
    queries={
        SUMS_OF: (_SUMS,),
        MASKED_SUMS_OF: (_hidden(_SUMS, _SUMS.content),),
        COUNTS_OF: (_COUNTS,),
        MASKED_COUNTS_OF: (_hidden(_COUNTS, "how many rows of each class lie in each of ten bins of each column"),),
        KEEP: (),
    },
    often=dict.fromkeys((SUMS_OF, MASKED_SUMS_OF, COUNTS_OF, MASKED_COUNTS_OF), "once, before training")
    | {KEEP: "once in each step"},
    most={SUMS_OF: 1, MASKED_SUMS_OF: 1, COUNTS_OF: 1, MASKED_COUNTS_OF: 1, KEEP: "steps"},
    replaces=10,
    only={
        SUMS_OF: counts_in_clear,
        COUNTS_OF: counts_in_clear,
        MASKED_SUMS_OF: counts_masked,
        MASKED_COUNTS_OF: counts_masked,
    },
)
register("contract", "feature_select")(FEATURE_SELECT)
