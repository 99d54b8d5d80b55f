"""A client's log loss on its validation rows at 37 temperatures; the server learns only the sum over clients."""

from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext
from fedimb.contracts import platform as names
from fedimb.evaluation.temperature import loss_sums
from fedimb.privacy.secrets import masked_figures
from fedimb.records import array_record

QUERIES = (names.MASKED_LOSSES,)


def held_out_losses(context: ClientContext) -> np.ndarray:
    """[37] int64 over the validation rows under the received model (`fedimb.evaluation.temperature.loss_sums`).

    Raises:
        DataError: logits that are not finite.
    """
    return loss_sums(context.forward("validation")[1], context.data.tensors("validation")[1])


def answer_query(query: str, content: RecordDict, context: ClientContext) -> RecordDict:
    """The client's reply to `QUERIES`: ``x.losses`` [37] uint64, masked among the clients that the request lists."""
    request: dict[str, Any] = dict(content.config_records["view"])
    clients = [int(client) for client in request["clients"]]
    sent, more = masked_figures(held_out_losses(context), context, clients, context.secrets)
    return RecordDict({names.LOSSES: array_record({"sums": sent}), **more})
