"""What the two sides of FedMD agree on: settings, the server's rows, and what each client's model says of them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from fedimb.contracts.base import Contract
from fedimb.contracts.public_scores import SAID
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Count, NonNegative, Positive, PositiveCount, Share

SHOW = "fedmd_rows"
"""Query: keep these rows, see `fedimb.contracts.public_scores.ROWS`."""
CONSENSUS = "x.consensus"
"""Sent with train messages once there is one: logits [P, C] and weights [P] float32, known [C] uint8."""


@dataclass(frozen=True)
class FedMDSettings(Settings):
    """Settings of FedMD.

    Attributes:
        digest: share of a round's local steps in which a client learns the consensus, before the rest are on its own
            rows; at least one step each. 0: clients learn nothing from each other.
        match: logits: by the mean absolute difference, as the authors' code does; probabilities: by KL divergence.
        aggregation: mean: of the clients' logits; entropy_reduction: DS-FL's, of their probabilities, made less
            uncertain.
        temperature: of entropy_reduction.
        entropy: power of (1 - entropy of the consensus, relative to its largest) that a row weighs; 0: all rows weigh
            alike.
        balance: factor on the loss of the digest by the client's classes: none; entropy: large where it has all
            classes alike; complement: large where it has few.
        min_rows: rows a client needs to say anything; what a model of few rows says shows these.
        pretrain: passes over the server's rows, with their labels, before a client trains for the first time; the
            paper begins so, until convergence.
    """

    method: ClassVar[str] = "fedmd"

    digest: Share = 0.5
    match: Literal["logits", "probabilities"] = "logits"
    aggregation: Literal["mean", "entropy_reduction"] = "mean"
    temperature: Positive = 0.1
    entropy: NonNegative = 0.0
    balance: Literal["none", "entropy", "complement"] = "none"
    min_rows: PositiveCount = 10
    pretrain: Count = 0


FEDMD = Contract(
    name="fedmd",
    train=(SAID,),
    queries={SHOW: ()},
    often={SHOW: "once, before training"},
    most={SHOW: 1},
    adds_rows=True,
)
register("contract", "fedmd")(FEDMD)
