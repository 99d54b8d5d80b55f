"""A channel: train messages go out one by one, and replies are taken as they come, each client at its own time."""

from dataclasses import dataclass
from typing import Protocol

from flwr.app import Message

from fedimb.engine.record_checks import Refusal


@dataclass(frozen=True)
class Received:
    """A reply that has come.

    Attributes:
        client: stable id of who sent it.
        reply: the reply, or an error in its place.
        ns: when, in nanoseconds since the training began, where that is on record; None: now.
        refused: what in it is not as it should be, where that was seen before admission; None: nothing.
    """

    client: int
    reply: Message
    ns: int | None = None
    refused: Refusal | None = None


class Channel(Protocol):
    """What a training without rounds needs of clients whose arrivals nobody knows before."""

    def send(self, client: int, message: Message) -> None:
        """Send a client its train message. A client has one at a time."""

    def receive(self) -> Received:
        """Wait for the next reply; called only while a message is open.

        Raises:
            RunWaiting: a client waits for a person.
        """
        ...

    def note(self, client: int, reason: str) -> None:
        """Tell that a client's reply cannot be used."""

    def close(self) -> None:
        """Messages that are still open are abandoned: nobody takes their replies."""
