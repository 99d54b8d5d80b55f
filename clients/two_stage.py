"""Two-stage training at a site: in the second stage the head alone is trained, on batches with every class alike."""

from fedimb.clientapp.context import ClientContext
from fedimb.clients.base import Client
from fedimb.contracts.two_stage import STAGE, TwoStageSettings
from fedimb.registry import register
from fedimb.training.objectives.alternate import Alternate
from fedimb.training.samplers.class_balanced import ClassBalanced
from fedimb.training.spec import TrainSpec


@register("client", "two_stage")
class TwoStageClient(Client):
    """Two-stage training at a site.

    Args:
        settings: a `TwoStageSettings`; or give its fields by name.
    """

    def __init__(self, settings: TwoStageSettings | None = None, **fields: object) -> None:
        self.settings = TwoStageSettings.of(settings, fields)

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """As configured; in the second stage with another sampler, and all steps on the head."""
        if STAGE not in context.content:
            return spec
        objectives = (*spec.objectives, Alternate(spec.steps + 1))  # more than there are: the rest is never trained
        return spec.change(sampler=ClassBalanced(), objectives=objectives)
