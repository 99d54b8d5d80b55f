"""What the two sides of HeroCrystal agree on: settings, rows sent to all clients, and the heads of the end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Count, NonNegative, Positive, PositiveCount, Range

SAMPLES = "herocrystal_samples"
"""Query: keep these rows, which every client trains on beside its own."""
ROWS = "x.samples"
"""Sent with it, and kept: x [n, *shape] float32 and y [n] int64."""
ANNOTATED = "x.annotated"
"""Sent with every train message if clients annotate different classes: [K, C] uint8."""
HEADS = "herocrystal_head"
"""Query: the head that stayed at the client."""
HEAD = "x.private_head"
"""The reply to it; absent from a client that has never trained, whose head is still the initial one."""


@dataclass(frozen=True)
class HeroCrystalSettings(Settings):
    """Settings of HeroCrystal.

    Attributes:
        contrast: direction of the contrastive term: dynamic, moon or inverse; none: without it.
        mu: strength of the contrastive term.
        temperature: of its similarities.
        samples: labelled rows of the server that every client trains on too: none; all; rare: of classes with less than
            a tenth of the rows of the largest, pooled over the clients.
        pivot: client that is believed where several annotate a class; null: the mean of their logits.
        agreement: the server leaves out rows whose class not every annotator of it confirms.
        sharpening: temperature of the taught distribution; 1: as the teachers say.
        entropy: power of (1 - entropy of the taught distribution, relative to its largest) that a row weighs; 0: all
            rows weigh alike.
        min_score: rows whose largest probability is at most this teach nothing.
        epochs: passes over the server's rows in which the fused head is taught.
        lr: learning rate of the fused head, features scaled to length 1 on average.
        batch_size: rows of a step of that training.
    """

    method: ClassVar[str] = "herocrystal"

    contrast: Literal["dynamic", "moon", "inverse", "none"] = "dynamic"
    mu: NonNegative = 0.5
    temperature: Positive = 0.5
    samples: Literal["none", "all", "rare"] = "all"
    pivot: Count | None = None
    agreement: bool = True
    sharpening: Positive = 0.25
    entropy: NonNegative = 0.5
    min_score: Annotated[float, Range(0, 1)] = 0.1
    epochs: Count = 20
    lr: Positive = 0.1
    batch_size: PositiveCount = 16


def _sends_samples(settings: Mapping[str, Any]) -> bool:
    return settings.get("samples") != "none"


HEROCRYSTAL = Contract(
    name="herocrystal",
    queries={
        SAMPLES: (),
        HEADS: (
            Record(
                HEAD,
                "arrays",
                "the last layer of this site's model, which did not leave it before",
                "model",
                dtypes=("float32",),
                shape="C x d + C",
                values={"weight": Values("C x d"), "bias": Values("C")},
                optional=True,
            ),
        ),
    },
    often={SAMPLES: "once, before training", HEADS: "once, after training"},
    most={SAMPLES: 1, HEADS: 1},
    only={SAMPLES: _sends_samples},
    replaces=1,
    aggregation_weight="uniform",
    adds_rows=True,
)
register("contract", "herocrystal")(HEROCRYSTAL)
