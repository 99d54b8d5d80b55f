"""FairFAL at a site: active learning's client with the rule ``fairfal`` and the adaptive choice of the model."""

from typing import ClassVar

from fedimb.clients.active import ActiveClient
from fedimb.contracts.fairfal import FairFALSettings
from fedimb.registry import register


@register("client", "fairfal")
class FairFALClient(ActiveClient):
    """FairFAL at a site.

    Args:
        settings: a `FairFALSettings`; or give its fields by name.
    """

    name: ClassVar[str] = "fairfal"

    def __init__(self, settings: FairFALSettings | None = None, **fields: object) -> None:
        super().__init__(FairFALSettings.of(settings, fields))
