"""FedDF at a site: train as in FedAvg, then say what the trained model thinks of the server's rows."""

import torch
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext
from fedimb.clients.public_scores import ScoresPublicRows, said
from fedimb.contracts.feddf import FedDFSettings
from fedimb.contracts.public_scores import ROWS
from fedimb.records import arrays_of
from fedimb.registry import register
from fedimb.training.local import LocalResult


@register("client", "feddf")
class FedDFClient(ScoresPublicRows):
    """FedDF at a site.

    Args:
        settings: a `FedDFSettings`; or give its fields by name.
    """

    name = "feddf"

    def __init__(self, settings: FedDFSettings | None = None, **fields: object) -> None:
        self.settings = FedDFSettings.of(settings, fields)

    def after_training(self, result: LocalResult, context: ClientContext) -> RecordDict:
        """The trained model's logits of the server's rows."""
        if ROWS not in context.state or not result.steps:
            return RecordDict()
        return said(torch.from_numpy(arrays_of(context.state, ROWS)["x"]), context)
