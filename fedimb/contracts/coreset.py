"""What server and clients agree on for coreset baselines: settings, class means if a rule needs them, the choice."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values, counts
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Count, PositiveCount, Range

MEANS = "x.class_means"
CENTRES = "x.centres"
CHOSEN = "x.chosen"

CENTRES_OF = "coreset_centres"
"""Query: per class the mean of the penultimate features of its rows; for rules that need ``centres``."""
CHOOSE = "coreset_choose"
"""Query: choose rows; the reply holds how many of each class were kept and held, and the local steps it took."""


@dataclass(frozen=True)
class CoresetSettings(Settings):
    """Settings of a coreset baseline.

    Attributes:
        rule: {name: ..., ...} of the kind coreset.
        keep: share of its rows that each client keeps, (0, 1].
        match: inner: as many rows of each class as the inner method scope kept; none: keep.
        warmup: federated rounds before the choice, part of rounds.
        epochs: local epochs of training that some rules observe (el2n, grand, forgetting, ccs).
        encoder: {name: ..., ...} of the kind encoder, for rules that compare embeddings.
        steps: equal: as many local steps as on all rows; native: epochs over the coreset.
    """

    method: ClassVar[str] = "coreset"

    rule: Mapping[str, Any] = field(default_factory=lambda: {"name": "random"})
    keep: Annotated[float, Range(0, 1, low_allowed=False)] = 0.5
    match: Literal["none", "inner"] = "none"
    warmup: Count = 0
    epochs: PositiveCount = 10
    encoder: Mapping[str, Any] = field(default_factory=lambda: {"name": "global_features"})
    steps: Literal["equal", "native"] = "equal"


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
                values={"means": Values("C x d", missing=True)},
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
                values={"kept": counts("C"), "held": counts("C"), "steps": Values("1", low=0, whole=True)},
            ),
        ),
    },
    often=dict.fromkeys((CENTRES_OF, CHOOSE), "once, before training"),
    most=dict.fromkeys((CENTRES_OF, CHOOSE), 1),
)
register("contract", "coreset")(CORESET)
