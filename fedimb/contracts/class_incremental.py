"""What server and clients agree on in class-incremental learning: settings, and the message that begins each phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values, counts
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Count, PositiveCount

PHASE = "x.phase"
"""Sent to the clients: the phase's ``number``, 1-based, and the class ids ``new`` in it and ``old`` from before."""
SEEN = "x.phase_rows"
BEGIN = "class_incremental_begin"
"""Query at the start of each phase: choose the memory among the rows trained on last, then show those of the phase."""
STATE_OF_PHASE = "phase"
"""Record of a client's state: ``new``, class ids of its phase, and ``old``, those of all phases before, int64 each."""
OF_PHASE = "data/phase"
"""Metric of a round: the number of the phase that it belongs to, 1-based."""


@dataclass(frozen=True)
class ClassIncrementalSettings(Settings):
    """Settings of class-incremental learning.

    Attributes:
        rounds: rounds of each phase, which add up to those of the run; null: the run's are divided equally.
        memory: rows of earlier phases that each client keeps to train on again; 0: none (fine-tuning).
        share: of the memory: equal: as many rows of each class seen so far as it has, evenly; rule: the rule decides.
        rule: {name: ..., ...} of the kind coreset, which chooses the rows.
        epochs: local epochs of training that some rules observe (el2n, grand, forgetting, ccs).
        encoder: {name: ..., ...} of the kind encoder, for rules that compare embeddings.
    """

    method: ClassVar[str] = "class_incremental"

    rounds: Sequence[PositiveCount] | None = None
    memory: Count = 20
    share: Literal["equal", "rule"] = "equal"
    rule: Mapping[str, Any] = field(default_factory=lambda: {"name": "herding"})
    epochs: PositiveCount = 10
    encoder: Mapping[str, Any] = field(default_factory=lambda: {"name": "global_features"})


CLASS_INCREMENTAL = Contract(
    name="class_incremental",
    queries={
        BEGIN: (
            Record(
                SEEN,
                "arrays",
                "per class: rows to train on in the phase, and of these the rows kept from earlier phases; local steps "
                "spent on choosing them",
                "aggregate",
                dtypes=("int32",),
                reveals="class_counts",
                about="class",
                shape="2 x C + 1",
                values={"rows": counts("C"), "memory": counts("C"), "steps": Values("1", low=0, whole=True)},
            ),
        ),
    },
    often={BEGIN: "once in each phase, before it is trained"},
)
register("contract", "class_incremental")(CLASS_INCREMENTAL)
