"""FairFAL's contract, which is that of active learning (`fedimb.contracts.active`), and its settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fedimb.contracts.active import ActiveSettings, Ask, active_contract
from fedimb.registry import register


@dataclass(frozen=True)
class FairFALSettings(ActiveSettings):
    """Settings of FairFAL: active learning with its own rule and the adaptive choice of the model.

    Attributes:
        query: {name: fairfal, ...}; its options: kappa, delta, embedding_model, leftover.
        which: the model whose uncertainty counts: global, local, or adaptive (the paper).
    """

    method: ClassVar[str] = "fairfal"

    query: Mapping[str, Any] = field(default_factory=lambda: {"name": "fairfal"})
    which: Ask = "adaptive"


register("contract", "fairfal")(active_contract("fairfal"))
