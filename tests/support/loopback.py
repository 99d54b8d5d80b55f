"""Flower between a coordinator and nodes, in one process: messages go to the real ClientApp in each node's folder."""

import itertools
import os
from collections.abc import Callable, Iterable
from types import SimpleNamespace

from flwr.app import Context, Error, Message, RecordDict

from fedimb.deploy.home import NODE_HOME, NodeHome
from fedimb.deploy.site.app import app
from fedimb.deploy.site.node_app import local_node
from fedimb.engine.flower_private import ensure_identity, number


class Loopback:
    """What the loop uses of Flower's Grid; a message is answered when it is asked for.

    Args:
        homes: nodes, in the order in which they got their ids, 101 and on.
        run_id: Flower's, another one when a run is resumed.
        faults: (site, message) -> an error code that takes the place of the answer; "lost": no answer ever; or None.
    """

    def __init__(
        self,
        homes: Iterable[NodeHome],
        run_id: int = 1,
        faults: Callable[[str, Message], int | str | None] = lambda site, message: None,
    ) -> None:
        ensure_identity()
        self.homes = dict(enumerate(homes, 101))
        self.run_id, self.faults = run_id, faults
        self.offline: set[str] = set()
        self.let_in = {home.site: "1" for home in self.homes.values()}
        self.asked: list[tuple[str, str]] = []
        self._numbers = itertools.count(1)
        self._open: dict[str, Message] = {}

    def get_nodes(self) -> list[SimpleNamespace]:
        """Those online."""
        return [
            SimpleNamespace(name=home.site, node_id=node, last_activated_at=self.let_in[home.site])
            for node, home in self.homes.items()
            if home.site not in self.offline
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take messages."""
        ids = []
        for message in messages:
            number(message, f"{self.run_id}-{next(self._numbers)}")
            self._open[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        """Have the nodes answer."""
        replies = []
        for id_ in ids:
            message = self._open[id_]
            home = self.homes[message.metadata.dst_node_id]
            fault = self.faults(home.site, message)
            if fault == "lost":
                continue
            del self._open[id_]
            self.asked.append((home.site, message.metadata.message_type))
            if fault is not None:
                replies.append(Message(Error(code=int(fault), reason="as Flower says"), reply_to=message))
            else:
                replies.append(at_node(home, message, self.run_id))
        return replies


def at_node(home: NodeHome, message: Message, run_id: int = 1) -> Message:
    """What a node's process answers."""
    before = os.environ.get(NODE_HOME)
    os.environ[NODE_HOME] = str(home.root)
    local_node.cache_clear()  # a process answers one message
    try:
        return app(message, Context(run_id, message.metadata.dst_node_id, {}, RecordDict(), {}))
    finally:
        os.environ.pop(NODE_HOME)
        if before is not None:
            os.environ[NODE_HOME] = before
