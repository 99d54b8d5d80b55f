"""What the two sides of FedRep agree on: its settings. It sends nothing beside the weights that are shared."""

from dataclasses import dataclass
from typing import ClassVar

from fedimb.contracts.base import Contract
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Share


@dataclass(frozen=True)
class FedRepSettings(Settings):
    """Settings of FedRep.

    Attributes:
        head: share of a round's local steps that train the head alone, before the rest train the backbone.
    """

    method: ClassVar[str] = "fedrep"

    head: Share = 0.9


FEDREP = Contract(name="fedrep")
register("contract", "fedrep")(FEDREP)
