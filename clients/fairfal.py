"""FairFAL at a site: the client of active learning with the rule ``fairfal`` and the adaptive choice of the model."""

from collections.abc import Mapping
from typing import Any, ClassVar

from fedimb.clients.active import ActiveClient, Ask
from fedimb.registry import register


@register("client", "fairfal")
class FairFALClient(ActiveClient):
    """Settings as in `fedimb.strategies.fairfal`."""

    forwards: ClassVar[Mapping[str, tuple[str, ...]]] = {
        f"fairfal_{what}": ("train",) for what in ("balance", "prototypes", "choose")
    }

    def __init__(
        self,
        query: dict[str, Any] | None = None,
        which: Ask = "adaptive",
        oracle: dict[str, Any] | None = None,
        local_epochs: int = 50,
        local_stop: float = 0.99,
    ) -> None:
        super().__init__(query or {"name": "fairfal"}, which, oracle, local_epochs, local_stop)
