"""What the two sides of two-stage training agree on: its settings. It sends nothing beside the weights."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fedimb.contracts.base import Contract
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Range

STAGE = "x.stage"
"""Sent with train messages of the second stage: ``second`` [1] uint8, 1."""


@dataclass(frozen=True)
class TwoStageSettings(Settings):
    """Settings of two-stage training.

    Attributes:
        first: share of the rounds that train the whole model as configured, before the rest train the head alone, on
            batches in which every class that a client holds is as likely; at least one round each.
    """

    method: ClassVar[str] = "two_stage"

    first: Annotated[float, Range(0, 1, low_allowed=False, high_allowed=False)] = 0.8


TWO_STAGE = Contract(name="two_stage")
register("contract", "two_stage")(TWO_STAGE)
