"""The server's part of what FedMD and FedDF share: what clients say of its rows, and of which classes each may."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from flwr.app import Message
from numpy.typing import NDArray
from torch import Tensor

from fedimb.contracts.public_scores import ANNOTATED, SCORES
from fedimb.records import array_record, arrays_of
from fedimb.serverapp.steps import Reply
from fedimb.strategies.base import sent_along


class Teachers:
    """Which client speaks of which class.

    Args:
        annotated: [K, C]; None: every client of all.
    """

    def __init__(self, annotated: NDArray[np.bool_] | None = None) -> None:
        self._annotated = annotated

    def told(self, messages: Iterable[Message]) -> Iterable[Message]:
        """Train messages, with what each client annotates if that differs."""
        if self._annotated is None:
            return messages
        return sent_along(messages, ANNOTATED, array_record({"annotated": self._annotated.astype(np.uint8)}))

    def said(self, replies: Sequence[Reply]) -> tuple[Tensor, Tensor] | None:
        """Logits [k, P, C] of the k clients that sent some, in the order of their ids, and what they annotate [k, C].

        None: nobody did.
        """
        found = [reply for reply in replies if SCORES in reply.content]
        if not found:
            return None
        logits = torch.from_numpy(np.stack([arrays_of(reply.content, SCORES)["logits"] for reply in found]))
        annotated = torch.ones(len(found), logits.shape[2], dtype=torch.bool)
        if self._annotated is not None:
            annotated = torch.from_numpy(self._annotated[[reply.client for reply in found]])
        return logits, annotated
