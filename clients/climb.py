"""CLIMB at a site: report the received model's loss over the training rows."""

import math

import numpy as np
import torch
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext
from fedimb.clients.base import Client
from fedimb.contracts.climb import LOSS, LOSSES, ClimbSettings
from fedimb.records import array_record
from fedimb.registry import register


@register("client", "climb")
class ClimbClient(Client):
    """CLIMB at a site.

    Args:
        settings: a `ClimbSettings`; or give its fields by name.
    """

    def __init__(self, settings: ClimbSettings | None = None, **fields: object) -> None:
        self.settings = ClimbSettings.of(settings, fields)

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """The mean loss, as the run configures it, over the rows trained on; NaN without rows.

        A mean, not the sum over batches of the paper's code: that grows with a client's number of batches.
        """
        assert name == LOSSES, name
        features, logits = context.forward("trained_on")
        _, y = context.data.tensors("trained_on")
        mean = math.nan
        if len(y):
            loss = context.spec().loss.to(logits.device).eval()
            with torch.no_grad():
                named = {"features": features} if getattr(loss, "needs_features", False) else {}
                mean = float(loss(logits, y.to(logits.device), **named))
        arrays = {"mean": np.array([mean], np.float64), "rows": np.array([len(y)], np.int64)}
        return RecordDict({LOSS: array_record(arrays)})
