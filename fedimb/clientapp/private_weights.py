"""The weights that stay at a client (``clients.private``): FedPer's head, FedBN's normalisation layers.

Arivazhagan et al., "Federated Learning with Personalization Layers", 2019 (arXiv 1912.00818); Li et al., "FedBN", ICLR
2021. They are client state: stored with the version of the message that changed them, and never in a reply.
"""

from collections.abc import Callable, Container

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor

from fedimb.models.base import Resident
from fedimb.records import array_record, to_numpy

STATE = "private"
"""The record of a client's state that holds them."""
COUNTS = "private-counts"
"""The record of a client's state that holds the class counts they were trained on, where its scores are corrected by
them (``prior.provenance=local``)."""


class PrivateWeights:
    """Puts each client's own weights into the resident model, which the client before it has left its own in.

    Args:
        resident: the resident model as it was built: every client starts from its private weights.
    """

    def __init__(self, resident: Resident) -> None:
        self._resident = resident
        self._initial = self._tensors(resident.private())

    def _tensors(self, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
        device = next(self._resident.model.parameters()).device
        return {name: torch.from_numpy(value).to(device) for name, value in arrays.items()}

    def load(self, state: RecordDict, sent: Container[str] = ()) -> None:
        """Load a client's own weights, or the initial ones before it has any.

        Args:
            state: the client's.
            sent: names of the weights in the message: one that has all of a model, as a server that has fused the
                clients' may send, is used as it is.

        Raises:
            RuntimeError, KeyError: its state holds weights of another model.
        """
        if self._initial:
            own = self._tensors(to_numpy(state.array_records[STATE])) if STATE in state else {}
            self._resident.load({name: value for name, value in (self._initial | own).items() if name not in sent})

    def never_trained(self, state: RecordDict, sent: Container[str] = ()) -> bool:
        """Whether what `load` puts into the model is the initial part, which no training of this client has changed."""
        return STATE not in state and any(name not in sent for name in self._initial)

    def keep(self, state: RecordDict, counts: Callable[[], np.ndarray] | None = None) -> None:
        """Keep the resident model's private weights as this client's, unless training has diverged: values that are
        not finite would stay for good, though the server leaves out the reply.

        Args:
            state: the client's.
            counts: gives the class counts [C] of what they were trained on, which are kept too; None: they are not.
        """
        own = self._resident.private()
        if own and all(np.isfinite(value).all() for value in own.values()):
            state[STATE] = array_record(own)
            if counts is not None:
                state[COUNTS] = array_record({"counts": np.asarray(counts(), np.float64)})


def own_counts(state: RecordDict) -> np.ndarray | None:
    """The class counts [C] float64 that a client's own part was trained on, if its state has them."""
    return to_numpy(state.array_records[COUNTS])["counts"] if COUNTS in state else None
