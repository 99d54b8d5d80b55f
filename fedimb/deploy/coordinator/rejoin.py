"""Sites of a run that goes on in a new ServerApp: each joins again before it is asked anything else.

Flower gives the new ServerApp's run another number, and a site answers messages of a number with which it has joined.
A site that is away meanwhile need not hold the others: what it told when it first joined is known, and it joins when
it is back.
"""

from collections.abc import Callable, Iterable

from flwr.app import Error, Message

from fedimb.contracts import platform as names
from fedimb.deploy.incidents import NOT_APPROVED
from fedimb.errors import FedimbError

QUERY = f"query.{names.JOIN_SITE}"


def _nobody(client: int) -> Message:
    raise KeyError(client)  # no site must join again, so none is asked to


class Rejoin:
    """Which sites must still join again.

    Args:
        clients: their client ids; none: all sites have joined.
        question: client id -> the query to join.
        accept: takes (client id, a site's reply to it). Raises FedimbError if the site must not be asked further.
    """

    def __init__(
        self,
        clients: Iterable[int] = (),
        question: Callable[[int], Message] = _nobody,
        accept: Callable[[int, Message], object] = lambda client, reply: None,
    ) -> None:
        self.open = set(clients)
        self._question, self._accept = question, accept

    def first(self, client: int, message: Message) -> Message:
        """What the site is sent before a message, or the message itself."""
        if client not in self.open or message.metadata.message_type == QUERY:
            return message
        return self._question(client)

    def question(self, client: int) -> Message:
        """The query to join."""
        return self._question(client)

    def refusal(self, client: int, reply: Message) -> Error | None:
        """Why the site is not asked, from its reply to the query; None: it has joined again."""
        if reply.has_error():
            return reply.error
        try:
            self._accept(client, reply)
        except FedimbError as error:
            return Error(code=NOT_APPROVED, reason=str(error))
        self.open.discard(client)
        return None
