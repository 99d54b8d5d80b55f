"""Hospital nodes as the clients of fedimb's loop: by name, with patience for those that come back. Source: ours.

Every order goes out at once. A node that Flower says is away is asked again when it is back, with the same message: a
client's state is versioned by message, so answering twice gives the same answer.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedimb.contracts import platform as names
from fedimb.deploy.incidents import WAITING
from fedimb.deploy.node_door import take_head
from fedimb.deploy.screen import screened
from fedimb.engine.flower_grid import in_lanes
from fedimb.engine.grid import SimulationGrid
from fedimb.engine.lanes import LaneOutcome, Order
from fedimb.errors import RunFailed, RunWaiting

log = logging.getLogger("fedimb")

AWAY = (3, 4, 5)
"""Flower's codes of a message or reply that got lost because a node went away (flwr.common.constant.ErrorCode)."""
_POLL_S = 0.3


@dataclass(frozen=True)
class Waits:
    """How long a coordinator waits, in seconds.

    Attributes:
        join_s: for all sites to be online at the start.
        away_s: in all, for a node that went away within an exchange.
        deadline_s: for an exchange; whoever has not answered then is not in it. None: no limit.
    """

    join_s: float = 300.0
    away_s: float = 1800.0
    deadline_s: float | None = None


class DeployedGrid(SimulationGrid):
    """The sites of a deployment.

    Args:
        grid: what Flower gave the ServerApp.
        sites: names in client-id order.
        heads: folder for the sites' audit heads, one JSONL each.
        waits: see there.
    """

    def __init__(self, grid: Grid, sites: Sequence[str], heads: Path, waits: Waits) -> None:
        super().__init__(len(sites))
        self._grid, self._sites, self._heads, self._waits = grid, dict(enumerate(sites)), heads, waits
        self.scaling: ArrayRecord | None = None  # goes with every message
        self._node_of = self._find()

    def _find(self) -> dict[int, int]:
        """Node id by client id; waits until all are there."""
        deadline = time.monotonic() + self._waits.join_s
        while True:
            by_name = {node.name: node.node_id for node in self._grid.get_nodes()}
            missing = [site for site in self._sites.values() if site not in by_name]
            if not missing:
                return {client: by_name[site] for client, site in self._sites.items()}
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"{', '.join(missing)} not online after {self._waits.join_s:.0f} s: is fedimb node run running "
                    "there? go on without with fedimb deploy remove-site, or resume when they are"
                )
            time.sleep(1.0)

    def run_lanes(self, lanes: Sequence[Sequence[Order]], reduce: bool, costs: Sequence[float]) -> list[LaneOutcome]:
        """All messages at once; answers are sorted into lanes, so every engine adds in the same order."""
        orders = {client: message for lane in lanes for client, message in lane}
        replies = screened(orders, self.ask(orders), self._sites)
        return in_lanes(lanes, orders, replies, reduce)

    def ask(self, orders: Mapping[int, Message]) -> dict[int, Message]:
        """Replies by client id of those that answered in time. Raises RunWaiting where a site waits for a person."""
        started, replies, away = time.monotonic(), {}, dict[int, float]()
        open_: dict[str, int] = {}
        self._push(orders, list(orders), open_)
        while open_ or away:
            now = time.monotonic()
            if self._waits.deadline_s is not None and now - started > self._waits.deadline_s:
                break
            for reply in self._grid.pull_messages(list(open_)) if open_ else ():
                client = open_.pop(reply.metadata.reply_to_message_id)
                if reply.has_error() and reply.error.code in AWAY and now - started < self._waits.away_s:
                    log.warning("%s is away (%s); asked again", self._sites[client], reply.error.reason)
                    away[client] = now + 5.0
                    continue
                replies[client] = reply
                self._note(client, reply)
            back = [client for client, at in away.items() if at <= now]
            for client in back:
                del away[client]
            self._push(orders, back, open_)
            time.sleep(_POLL_S)
        self._refuse_waiting(replies)
        return replies

    def _push(self, orders: Mapping[int, Message], clients: Sequence[int], open_: dict[str, int]) -> None:
        if not clients:
            return
        messages = [self._sent(client, orders[client]) for client in clients]
        for client, pushed in zip(clients, self._grid.push_messages(messages), strict=True):
            if pushed is None:
                raise RunFailed(f"the SuperLink did not take the message for {self._sites[client]}; see its log")
            open_[pushed] = client

    def _sent(self, client: int, order: Message) -> Message:
        content = dict(order.content)
        if self.scaling is not None:
            content[names.SCALING] = self.scaling
        return Message(RecordDict(content), self._node_of[client], order.metadata.message_type)

    def _note(self, client: int, reply: Message) -> None:
        """Keep the number and hash of the site's audit line: a log rewritten later no longer agrees with them."""
        head = take_head(reply)
        if head is not None:
            self._heads.mkdir(parents=True, exist_ok=True)
            with open(self._heads / f"{self._sites[client]}.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({"line": head.line, "sha": head.sha}) + "\n")

    def _refuse_waiting(self, replies: Mapping[int, Message]) -> None:
        waits = [str(r.error.reason) for r in replies.values() if r.has_error() and r.error.code == WAITING]
        if waits:
            raise RunWaiting(f"waiting: {'; '.join(text.removeprefix('waiting: ') for text in waits)}")

    def each(self, kind: str, content: Callable[[int], dict[str, Any]]) -> dict[int, Message]:
        """One query to every site, before the loop begins; ``content`` by client id, of plain values."""
        orders = {
            client: Message(RecordDict({names.RUN: ConfigRecord(content(client))}), node, f"query.{kind}")
            for client, node in self._node_of.items()
        }
        return self.ask(orders)
