"""FedRep at a site: first the head alone, then the backbone alone."""

from fedimb.clientapp.context import ClientContext
from fedimb.clients.base import Client
from fedimb.contracts.fedrep import FedRepSettings
from fedimb.registry import register
from fedimb.training.objectives.alternate import Alternate
from fedimb.training.spec import TrainSpec


@register("client", "fedrep")
class FedRepClient(Client):
    """FedRep at a site.

    Args:
        settings: a `FedRepSettings`; or give its fields by name.
    """

    def __init__(self, settings: FedRepSettings | None = None, **fields: object) -> None:
        self.settings = FedRepSettings.of(settings, fields)

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """As many steps as any method takes, of which the first train the head."""
        return spec.change(objectives=(*spec.objectives, Alternate(round(self.settings.head * spec.steps))))
