"""The sites of a deployment one by one: a slow hospital holds nobody, and one that went away is asked when it is back.

A reply is taken in the order in which it comes. What the coordinator itself reads of it, and how long its update is
beside those of the others, is checked here; the rest where it is summed.
"""

import time
from collections import deque

from flwr.app import Message

from fedimb.deploy.coordinator.screen import ArrivalScreen
from fedimb.deploy.coordinator.site_grid import DeployedGrid, SiteMessages, is_away
from fedimb.engine.channel import Received


class SiteGrid(DeployedGrid):
    """The sites of a deployment, all at once or one by one."""

    def channel(self) -> "SiteChannel":
        """The sites one by one."""
        return SiteChannel(self)


class SiteChannel:
    """Train messages to sites, and their replies as they come.

    A site that stays away for ``Timeouts.away_s`` has failed that training; it is asked again when it is drawn again.

    Args:
        grid: the sites.
    """

    def __init__(self, grid: DeployedGrid) -> None:
        self._grid, self._messages = grid, SiteMessages(grid)
        self._screen = ArrivalScreen(grid.sites)
        self._open: dict[int, Message] = {}
        self._came: deque[Received] = deque()
        self._away_since: dict[int, float] = {}
        self._looked = time.monotonic()

    def send(self, client: int, message: Message) -> None:
        """Send a site its message."""
        self._open[client] = message
        self._messages.add({client: message})

    def receive(self) -> Received:
        """The next reply, however long it takes: nothing is left to do until it comes.

        Raises:
            RunWaiting: a site waits for a person.
        """
        timeouts = self._grid.timeouts
        while not self._came:
            self._pull()
            self._give_up_away(timeouts.away_s)
            if time.monotonic() - self._looked > timeouts.check_s:
                self._looked = time.monotonic()
                self._messages.push_again()
            if not self._came:
                time.sleep(timeouts.poll_s)
        return self._came.popleft()

    def _pull(self) -> None:
        for client, reply in self._messages.pull():
            if is_away(reply):
                self._messages.away[client] = reply
                self._grid.event(client, "is away; asked again when it is back")
                continue
            request = self._open.pop(client)
            reply = self._grid.taken(client, reply, request)
            self._grid.refuse_waiting({client: reply})
            refused = self._grid.unreadable(client)
            if refused is None:
                reply, refused = self._screen.screened(client, request, reply)
            self._came.append(Received(client, reply, refused=refused))

    def _give_up_away(self, away_s: float) -> None:
        """Sites that have been away for too long have failed."""
        now, away = time.monotonic(), self._messages.away
        self._away_since = {client: self._away_since.get(client, now) for client in away}
        for client, since in self._away_since.items():
            if now - since > away_s:
                self._came.append(Received(client, away.pop(client)))
                del self._open[client]

    def note(self, client: int, reason: str) -> None:
        """Tell who watches the run that a site's reply cannot be used."""
        self._grid.event(client, reason)

    def close(self) -> None:
        """Whatever still comes of open messages is not taken."""
        self._messages, self._open = SiteMessages(self._grid), {}
        self._came.clear()
