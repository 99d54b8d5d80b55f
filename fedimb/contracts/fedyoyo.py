"""What the two sides of FedYoYo agree on: settings, and each client's effective numbers before every round."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import NonNegative, Positive, PositiveCount

EFFECTIVE = "x.effective"
SHARES = "x.class_shares"
"""Sent with every train message: estimated class shares of the federation [C] float64."""
EFFECTIVE_OF = "fedyoyo_effective"
"""Query: the effective number of each class's rows under the received model (`fedimb.training.effective_numbers`)."""


@dataclass(frozen=True)
class FedYoYoSettings(Settings):
    """Settings of FedYoYo.

    Attributes:
        prior: effective: class shares from effective numbers; run: those of the run's prior, without an exchange.
        strong: {name: ..., ...} of the augmentation that makes the strong view, after those of local.augmentation.
        weight: lambda of the distillation; 4 in the paper's script, 1.5 in its options.
        warmup: rounds in which lambda rises evenly from 0.
        temperature: of the distillation.
        min_count: rows a class needs at a client to be reported; an effective number is close to a count.
    """

    method: ClassVar[str] = "fedyoyo"

    prior: Literal["effective", "run"] = "effective"
    strong: Mapping[str, Any] = field(default_factory=lambda: {"name": "rand_augment"})
    weight: NonNegative = 4.0
    warmup: PositiveCount = 50
    temperature: Positive = 1.5
    min_count: PositiveCount = 10


def _asks(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("prior", "effective") == "effective")


FEDYOYO = Contract(
    name="fedyoyo",
    queries={
        EFFECTIVE_OF: (
            Record(
                EFFECTIVE,
                "arrays",
                "per class: effective number of rows, from the likeness of their features; left out below a minimum "
                "count",
                "aggregate",
                dtypes=("float32",),
                reveals="class_counts",
                about="class",
                shape="C",
                values={"numbers": Values("C", low=0)},
            ),
        ),
    },
    often={EFFECTIVE_OF: "before every round, from every client with data"},
    only={EFFECTIVE_OF: _asks},
)
register("contract", "fedyoyo")(FEDYOYO)
