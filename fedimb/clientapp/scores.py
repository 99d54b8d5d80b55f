"""A client's confusion matrices on its validation rows, for a server that has no test rows."""

from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedimb import registry
from fedimb.clientapp.context import ClientContext
from fedimb.contracts import platform as names
from fedimb.evaluation.confusion import confusion_of
from fedimb.privacy.secrets import masked_figures
from fedimb.records import array_record
from fedimb.schema import calibration_part
from fedimb.training.calibrations.base import Outputs

QUERIES = (names.SCORED, names.MASKED_SCORES)


def answer_query(query: str, content: RecordDict, context: ClientContext) -> RecordDict:
    """The client's reply to one of `QUERIES`: ``x.scores``, one matrix per calibration of the run, int64 or masked."""
    matrices = _matrices(context)
    if query == names.SCORED:
        return RecordDict({names.SCORES: array_record(matrices)})
    request: dict[str, Any] = dict(content.config_records["view"])
    clients = [int(client) for client in request["clients"]]
    plain = np.concatenate([matrix.ravel() for matrix in matrices.values()])
    sent, more = masked_figures(plain, context, clients, context.secrets)
    parts = np.split(sent, len(matrices))
    hidden = {name: part.reshape(matrices[name].shape) for name, part in zip(matrices, parts, strict=True)}
    return RecordDict({names.SCORES: array_record(hidden), **more})


def _matrices(context: ClientContext) -> dict[str, np.ndarray]:
    _, y = context.data.tensors("validation")
    features, logits = context.forward("validation")
    head = context.model.head
    bias = None if head.bias is None else head.bias.detach()
    outputs = Outputs(features, logits, head.weight.detach(), bias, context.counts)
    return {
        name: confusion_of(y, registry.build("calibration", calibration_part(name), **(args or {})).adjust(outputs))
        for name, args in context.config.calibration.items()
    }
