"""CReFF at a site: class gradients in the head that the server re-trained."""

import torch
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext
from fedimb.clients.base import Client
from fedimb.contracts.creff import GRADIENTS, GRADIENTS_OF, HEAD, CreffSettings
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.training.gradient_matching import class_gradients


@register("client", "creff")
class CreffClient(Client):
    """CReFF at a site.

    Args:
        settings: a `CreffSettings`; or give its fields by name.
    """

    def __init__(self, settings: CreffSettings | None = None, **fields: object) -> None:
        self.settings = CreffSettings.of(settings, fields)

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """The gradients of the classes under the received body and head, over all rows of the class."""
        assert name == GRADIENTS_OF, name
        features = context.forward("trained_on")[0].cpu()
        labels = context.data.tensors("trained_on")[1].cpu()
        head = arrays_of(content, HEAD)
        weight, bias = (torch.from_numpy(head[part].copy()) for part in ("weight", "bias"))
        (of_weight, of_bias), _ = class_gradients(features, labels, weight, bias, self.settings.min_count)
        return RecordDict({GRADIENTS: array_record({"weight": of_weight.numpy(), "bias": of_bias.numpy()})})
