"""FairFAL's halves agree on what those of any active learning do: see `fedimb.contracts.active`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fedimb.contracts.active import ActiveSettings, Ask, active_contract
from fedimb.registry import register


@dataclass(frozen=True)
class FairFALSettings(ActiveSettings):
    """What FairFAL is set to: active learning with its rule and the adaptive choice of the model asked.

    Attributes:
        query: {name: fairfal, ...}; its switches: kappa, delta, embedding_model, leftover.
        which: the model whose uncertainty counts: global, local, or adaptive (the paper).
    """

    method: ClassVar[str] = "fairfal"

    query: Mapping[str, Any] = field(default_factory=lambda: {"name": "fairfal"})
    which: Ask = "adaptive"


register("contract", "fairfal")(active_contract("fairfal"))
