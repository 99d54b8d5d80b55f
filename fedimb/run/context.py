"""What a method's client half sees while it answers one message."""

from dataclasses import dataclass, field

import numpy as np
import torch
from flwr.app import RecordDict

from fedimb.config.schema import RunConfig
from fedimb.data.views import ClientData
from fedimb.models.base import Classifier
from fedimb.seeds import Stream, seed_int, torch_generator


@dataclass
class ClientContext:
    """What a method's client half sees while it answers one message.

    Attributes:
        client: stable client id.
        round, step: global training round and message version.
        data: the client's views.
        state: its persistent state; change it in place, it is saved if its content changed.
        model: the resident model, loaded with whatever weights the message carried.
        config: the resolved run configuration.
        counts: class counts [C] the prior is made of, or None.
        content: everything the message carried.
    """

    client: int
    round: int
    step: int
    data: ClientData
    state: RecordDict
    model: Classifier
    config: RunConfig
    counts: np.ndarray | None
    content: RecordDict = field(default_factory=RecordDict)

    def generator(self, stream: Stream = Stream.METHOD) -> torch.Generator:
        """This client's own generator for this round and purpose."""
        return torch_generator(self.config.seed, stream, self.round, self.client)

    def rng(self, stream: Stream = Stream.METHOD) -> np.random.Generator:
        """As `generator`, for NumPy."""
        return np.random.default_rng(seed_int(self.config.seed, stream, self.round, self.client))
