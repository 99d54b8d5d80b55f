"""What server and clients agree on in SCOPE: its settings, and three exchanges before training, of class aggregates
only.

A profile takes 28 C bytes per client: per class the number of rows and the mean and variance of three scores, 4 bytes
each. The paper's figures count 4 numbers per class; its description needs 7.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values, counts
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Count, NonNegative, Positive, PositiveCount, Share

Gate = Literal["relative", "literal"]
Variant = Literal["full", "no_global_profile", "no_anomaly", "no_redundancy", "no_diversity"]
Choice = Literal["scope", "random", "score_only", "undersample"]

CLASS_SUMS = "x.class_sums"
PROFILE = "x.profile"
KEPT = "x.kept"
PROTOTYPES = "x.prototypes"
CONSENSUS = "x.consensus"

SUMS = "scope_prototypes"
"""Query: per class the sum of unit embeddings; only if the encoder does not read text."""
PROFILES = "scope_profile"
"""Query: per class the number of rows, and mean and variance of RS, DS and Sneg; the message has the class vectors."""
PRUNE = "scope_prune"
"""Query: prune, given the consensus; the reply holds how many rows of each class were kept."""


@dataclass(frozen=True)
class ScopeSettings(Settings):
    """Settings of SCOPE.

    Attributes:
        p_f: share of every prunable class that stage 2 drops, [0, 1]; not the share of all rows.
        p_l: share of all rows that stage 1 drops as anomalies, [0, 1].
        beta: the gate: classes within beta of the most over-represented one may be pruned, [0, 1].
        gamma: exponent of the rarity weight W_c ~ (1 / (F_c + eps))^gamma, with F_c the class's share of all rows.
        eps: added to F_c in the rarity weight, for classes that nobody reports.
        gate: relative, or literal: T_c > beta with W summing to 1.
        variant: full, or an ablation: no_global_profile, no_anomaly, no_redundancy, no_diversity.
        choice: inside the gate: scope, or a control: random, score_only (no gate), undersample (no score).
        encoder: {name: ..., ...} of the kind encoder; global_features is the federation's own model.
        warmup: federated rounds before the choice, part of rounds; above 0 for global_features only.
        min_count: rows a class needs at a client to be reported.
        sigma: standard deviation of Gaussian noise on the reported sums, in rows; 0: none.
        min_rows: fewest rows a client keeps, if it has them.
        steps: equal: as many local steps as without pruning; native: epochs over the coreset, so compute is saved.
    """

    method: ClassVar[str] = "scope"

    p_f: Share = 0.5
    p_l: Share = 0.1
    beta: Share = 0.5
    gamma: NonNegative = 1.0
    eps: Positive = 1e-6
    gate: Gate = "relative"
    variant: Variant = "full"
    choice: Choice = "scope"
    encoder: Mapping[str, Any] = field(default_factory=lambda: {"name": "global_features"})
    warmup: Count = 5
    min_count: PositiveCount = 1
    sigma: NonNegative = 0.0
    min_rows: Count = 2
    steps: Literal["equal", "native"] = "equal"


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
                values={"sums": Values("C x e", low="-rows", high="rows")},
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
                values={
                    "counts": counts("C", noise="sigma"),
                    "mean": Values("C x 3", low=-1, high=1),
                    "variance": Values("C x 3", low=0, high=1),
                },
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
                values={"kept": counts("C"), "anomalous": counts("C"), "redundant": counts("C")},
            ),
        ),
    },
    often=dict.fromkeys((SUMS, PROFILES, PRUNE), "once, before training"),
    most=dict.fromkeys((SUMS, PROFILES, PRUNE), 1),
)
register("contract", "scope")(SCOPE)
