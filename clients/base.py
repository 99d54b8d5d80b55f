"""The client half of a method: what to train on, what to answer, what to send along. Never how to loop."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from flwr.app import RecordDict

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

    def views(self, context: "ClientContext") -> None:
        """Called first for every message: set the views that ``context.state`` tells of.

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
