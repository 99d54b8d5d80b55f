"""What the two sides of FedProto agree on: settings, and each client's mean features by class with its train reply."""

from dataclasses import dataclass
from typing import ClassVar

from fedimb.contracts.base import Contract
from fedimb.contracts.class_sums import class_sums
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import NonNegative, PositiveCount

FEATURE_SUMS = "x.feature_sums"
PROTOTYPES = "x.shared_prototypes"
"""Sent with train messages once there are some: ``prototypes`` [C, d] float32, ``known`` [C] uint8."""


@dataclass(frozen=True)
class FedProtoSettings(Settings):
    """Settings of FedProto.

    Attributes:
        weight: of the distance of a row's features to its class's prototype.
        min_count: rows a class needs at a client to be reported; the mean of one row is that row's features.
    """

    method: ClassVar[str] = "fedproto"

    weight: NonNegative = 1.0
    min_count: PositiveCount = 10


FEDPROTO = Contract(
    name="fedproto",
    train=(class_sums(FEATURE_SUMS),),
)
register("contract", "fedproto")(FEDPROTO)
