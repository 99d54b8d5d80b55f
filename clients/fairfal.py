"""FairFAL at a site: the client of active learning with the rule ``fairfal`` and the adaptive choice of the model."""

from typing import Any, ClassVar

from fedimb.clients.active import ActiveClient
from fedimb.contracts.fairfal import FairFALSettings
from fedimb.registry import register


@register("client", "fairfal")
class FairFALClient(ActiveClient):
    """The client's page of FairFAL.

    Args:
        settings: see `FairFALSettings`; or its fields by name.
    """

    name: ClassVar[str] = "fairfal"

    def __init__(self, settings: FairFALSettings | None = None, **fields: Any) -> None:
        super().__init__(FairFALSettings.of(settings, fields))
