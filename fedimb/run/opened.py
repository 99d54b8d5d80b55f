"""What a client's runtime keeps between opening a message and answering it."""

from dataclasses import dataclass
from typing import Any

from flwr.app import Message
from torch import Tensor

from fedimb.run.context import ClientContext
from fedimb.run.local_training import Prepared
from fedimb.training.stacked import Trained


@dataclass
class Opened:
    """A message being answered: what the client sees, and which of its states it builds on."""

    context: ClientContext
    before: tuple[Any, ...]
    keep: tuple[int, int]


@dataclass
class Done:
    """Training done ahead of its message's answer; ``random`` is torch's generator where the answer goes on."""

    message: Message
    opened: Opened
    prepared: Prepared
    trained: Trained
    random: Tensor
