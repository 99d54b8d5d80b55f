"""FairFAL at a site: the client of active learning with the rule ``fairfal`` and the adaptive choice of the model."""

from typing import Any, ClassVar

from fedimb.clients.active import ActiveClient, Ask
from fedimb.data.views import QueryView
from fedimb.registry import register


@register("client", "fairfal")
class FairFALClient(ActiveClient):
    """Settings as in `fedimb.strategies.fairfal`."""

    name: ClassVar[str] = "fairfal"

    def __init__(
        self,
        query: dict[str, Any] | None = None,
        which: Ask = "adaptive",
        oracle: dict[str, Any] | None = None,
        local_epochs: int = 50,
        local_stop: float = 0.99,
        query_view: QueryView = "train",
        kcfu: bool = False,
        cycles: int = 5,
        restart: bool = True,
    ) -> None:
        super().__init__(
            query or {"name": "fairfal"}, which, oracle, local_epochs, local_stop, query_view, kcfu, cycles, restart
        )
