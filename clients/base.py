"""The client side of a method: what to train on, how to answer queries, what to add to replies. It never loops."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from fedimb.privacy.secrets import clients_in_sum
from fedimb.privacy.secure_sum import mask_values
from fedimb.records import Arrays, array_record
from fedimb.training.local import LocalResult
from fedimb.training.spec import TrainSpec

if TYPE_CHECKING:
    from fedimb.clientapp.context import ClientContext, Site


class Client:
    """Base class of a method's client side; override what the method needs.

    An object lives for one message, so nothing may be kept in attributes: what must survive is written to
    ``context.state`` (a RecordDict), which is stored on disk with the version of the message that changed it.

    Attributes:
        forwards: for queries that carry the model, the views whose rows the reply passes through it
            (``context.forward``), e.g. ``{"scope_profile": ("train",)}``: if many clients with small models are served
            at once, their rows then go through the model together, with the same result.
    """

    forwards: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def check(self, site: "Site") -> None:
        """Called once before a run starts, where the data are: refuse what cannot work with them.

        Raises:
            ConfigError, DataError: why, and what to set instead.
        """

    def labels(self, context: "ClientContext") -> None:
        """Called first for every message, for all methods before any `views`: hide labels, and reveal those given.

        So it is settled what is labelled before other methods set which of these rows they chose.
        """

    def views(self, context: "ClientContext") -> None:
        """Called before every message is handled: set the views recorded in ``context.state``.

        Local training is on ``trained_on``: all training rows, reduced to ``labelled``, ``coreset`` and ``phase`` if
        these are set.
        """

    def train_spec(self, spec: TrainSpec, context: "ClientContext") -> TrainSpec:
        """Change this round's local training, e.g. by ``spec.change(lr=...)``."""
        return spec

    def after_training(self, result: LocalResult, context: "ClientContext") -> RecordDict:
        """Extra records for the train reply (keys ``x.*``, declared in the contract)."""
        return RecordDict()

    def query(self, name: str, content: RecordDict, context: "ClientContext") -> RecordDict:
        """Answer one of the queries this method's contract declares."""
        raise NotImplementedError(
            f"{type(self).__name__} declares query '{name}' but does not answer it: override query()"
        )


def masked(values: NDArray[np.int64], content: RecordDict, context: "ClientContext") -> NDArray[np.uint64]:
    """Integers under masks that cancel in the sum over the clients which a query names (`masked_request`)."""
    clients = clients_in_sum(content)
    shared = partial(context.secrets.mask, context, clients)
    hidden = mask_values(values.ravel(), client=context.client, clients=clients, shared=shared)
    return hidden.reshape(values.shape)


def coreset_record(kept: Tensor, context: "ClientContext") -> ArrayRecord:
    """A choice of rows as a method keeps it in its state.

    Args:
        kept: positions among the rows of `ClientData.known_view`, int64.
    """
    data = context.data
    rows = data.rows(data.known_view)
    chosen = {"rows": rows[kept.numpy()]}
    return array_record(chosen | {"among": rows} if data.labels_hidden else chosen)


def set_coreset(chosen: Arrays, context: "ClientContext") -> None:
    """Set the view ``coreset`` to what `coreset_record` kept, unless the labelled rows have changed since the choice.

    In that case a new labelling cycle has begun: until the method chooses again, all labelled rows are trained on.
    """
    data = context.data
    if not data.labels_hidden or np.array_equal(chosen["among"], data.rows("labelled")):
        data.set_view("coreset", chosen["rows"])
