"""The client half of a method: what to train on, what to answer, what to send along. Never how to loop."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from torch import Tensor

from fedimb.records import Arrays, array_record
from fedimb.training.local import LocalResult
from fedimb.training.spec import TrainSpec

if TYPE_CHECKING:
    from fedimb.clientapp.context import ClientContext, Site


class Client:
    """Base class; override what the method needs.

    One object lives for one message, so nothing may be kept in attributes: what must survive is written to
    ``context.state`` (a RecordDict), which is stored on disk with the version of the message that changed it.

    ``forwards`` names, for queries that carry the model, the views whose rows the answer passes through it
    (``context.forward``), as ``{"scope_profile": ("train",)}``: where many small models' clients are served at once,
    their rows then go through it together, with the same result.
    """

    forwards: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def check(self, site: "Site") -> None:
        """Called once before a run starts, where its data are: refuse what cannot work there.

        Raises:
            ConfigError, DataError: why, and what to set instead.
        """

    def labels(self, context: "ClientContext") -> None:
        """Called first for every message, of all methods before any `views`: hide labels, make known those given.

        What is labelled is then settled when other methods say which of these rows they chose.
        """

    def views(self, context: "ClientContext") -> None:
        """Called before every message is answered: set the views that ``context.state`` tells of.

        Local training is on ``trained_on``: all training rows, cut to ``labelled`` and ``coreset`` where these are set.
        """

    def train_spec(self, spec: TrainSpec, context: "ClientContext") -> TrainSpec:
        """Change how this round's local training goes, as by ``spec.change(lr=...)``."""
        return spec

    def after_training(self, result: LocalResult, context: "ClientContext") -> RecordDict:
        """Extra records for the train reply (keys ``x.*``, declared in the contract)."""
        return RecordDict()

    def query(self, name: str, content: RecordDict, context: "ClientContext") -> RecordDict:
        """Answer one of the queries this method's contract declares."""
        raise NotImplementedError(f"{type(self).__name__} declares query '{name}' and does not answer it")


def coreset_record(kept: Tensor, context: "ClientContext") -> ArrayRecord:
    """A choice as a method keeps it in its state.

    Args:
        kept: positions among the rows of `ClientData.known_view`, int64.
    """
    data = context.data
    rows = data.rows(data.known_view)
    chosen = {"rows": rows[kept.numpy()]}
    return array_record(chosen | {"among": rows} if data.labels_hidden else chosen)


def set_coreset(chosen: Arrays, context: "ClientContext") -> None:
    """Set the view ``coreset`` to what `coreset_record` kept, unless other rows are labelled now than it chose among.

    Until the method chooses anew, in the labelling cycle that has begun, all that is labelled is trained on.
    """
    data = context.data
    if not data.labels_hidden or np.array_equal(chosen["among"], data.rows("labelled")):
        data.set_view("coreset", chosen["rows"])
