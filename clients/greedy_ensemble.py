"""The greedy ensemble at a site: train alone, and show the model at the end."""

from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext, Site
from fedimb.clientapp.private_weights import STATE
from fedimb.clients.base import Client
from fedimb.clients.public_scores import annotated_in
from fedimb.contracts.greedy_ensemble import MODEL, GreedyEnsembleSettings
from fedimb.errors import ConfigError
from fedimb.models.base import parameters_of
from fedimb.records import array_record
from fedimb.registry import register
from fedimb.training.objectives.class_mask import ClassMask
from fedimb.training.spec import TrainSpec


@register("client", "greedy_ensemble")
class GreedyEnsembleClient(Client):
    """The greedy ensemble at a site.

    Args:
        settings: a `GreedyEnsembleSettings`; or give its fields by name.
    """

    def __init__(self, settings: GreedyEnsembleSettings | None = None, **fields: object) -> None:
        self.settings = GreedyEnsembleSettings.of(settings, fields)

    def check(self, site: Site) -> None:
        """Refuse several labels per row."""
        if site.task != "multiclass":
            raise ConfigError(
                "strategy=greedy_ensemble needs one class per row, but these have several labels; use another strategy"
            )

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """No logit of a class that this site does not annotate, of which it says nothing in the ensemble either."""
        annotated = annotated_in(context)
        return spec if annotated is None else spec.change(objectives=(*spec.objectives, ClassMask(annotated)))

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """The model; nothing before this client has trained it."""
        if STATE not in context.state:  # the initial model, which knows no row
            return RecordDict()
        return RecordDict({MODEL: array_record(parameters_of(context.model))})
