"""The client's part of what FedMD and FedDF share: keep the server's rows, and say what its model thinks of them."""

import torch
from flwr.app import RecordDict
from torch import Tensor

from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client
from fedimb.contracts.public_scores import ANNOTATED, ROWS, SCORES
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.training.forward import forward_batched
from fedimb.training.objectives.class_mask import ClassMask
from fedimb.training.spec import TrainSpec


class ScoresPublicRows(Client):
    """Keeps the server's rows, and leaves classes that the site does not annotate out of its softmax.

    Attributes:
        name: the method, for messages.
    """

    name = ""

    def check(self, site: Site) -> None:
        """Refuse several labels per row."""
        if site.task != "multiclass":
            raise ConfigError(
                f"strategy={self.name} needs one class per row, but these have several labels; use another strategy"
            )

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """No logit of a class that this site does not annotate: it knows no row of it, and that says nothing."""
        annotated = annotated_in(context)
        return spec if annotated is None else spec.change(objectives=(*spec.objectives, ClassMask(annotated)))

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Keep the received rows."""
        context.state[ROWS] = array_record(arrays_of(content, ROWS))
        return RecordDict()


def annotated_in(context: ClientContext) -> Tensor | None:
    """[C] bool: the classes that this client annotates; None: all."""
    if ANNOTATED not in context.content:
        return None
    return torch.from_numpy(arrays_of(context.content, ANNOTATED)["annotated"][context.client].copy()) > 0


def said(x: Tensor, context: ClientContext) -> RecordDict:
    """The model's logits of rows x [P, *shape]; nothing if one is not finite, as after a training that diverged."""
    logits = forward_batched(context.model, x.to(next(context.model.parameters()).device))[1].cpu()
    if not torch.isfinite(logits).all():
        return RecordDict()
    return RecordDict({SCORES: array_record({"logits": logits.numpy()})})
