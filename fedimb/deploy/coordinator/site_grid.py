"""Hospital nodes as the clients of fedimb's loop: by name, with patience for those that come back.

Every order goes out at once. A node that Flower says is away is asked again when it is back, with the same message: a
client's state is versioned by message, so answering twice gives the same answer. Flower says nothing of a node that
restarted within its heartbeat and so lost the message it had taken; that is seen by when it was last let in.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedimb.contracts import platform as names
from fedimb.deploy.audit_chain import Head
from fedimb.deploy.coordinator.screen import screened
from fedimb.deploy.incidents import WAITING
from fedimb.engine.flower_grid import in_lanes
from fedimb.engine.grid import CLIENT_FAILED, SimulationGrid
from fedimb.engine.lanes import Lane, LaneOutcome, Reduction
from fedimb.errors import RunFailed, RunWaiting

log = logging.getLogger("fedimb")

AWAY = (3, 4, 5)
"""Flower's codes of a message or reply that got lost because a node went away (flwr.common.constant.ErrorCode)."""
EVENTS = "sites.jsonl"
"""In the run folder: what happened to sites, one JSON object per line: ``time``, ``site``, ``text``."""


@dataclass(frozen=True)
class Timeouts:
    """How long a coordinator waits, in seconds.

    Attributes:
        join_s: for all sites to be online at the start, and then for them to join.
        away_s: in all, for a node that went away within an exchange.
        deadline_s: for an exchange of the run; whoever has not answered then is not in it. None: no limit.
        poll_s: between two looks for answers.
        look_s: between two looks at which nodes are online.
    """

    join_s: float = 300.0
    away_s: float = 1800.0
    deadline_s: float | None = None
    poll_s: float = 0.3
    look_s: float = 3.0


class DeployedGrid(SimulationGrid):
    """The sites of a deployment.

    Args:
        grid: what Flower gave the ServerApp.
        sites: names in client-id order.
        folder: the run's; the sites' audit heads go to ``heads/<site>.jsonl`` in it, what happens to `EVENTS`.
        waits: see there.
    """

    def __init__(self, grid: Grid, sites: Sequence[str], folder: Path, timeouts: Timeouts) -> None:
        super().__init__(len(sites))
        self._grid, self._sites, self._folder, self._timeouts = grid, dict(enumerate(sites)), folder, timeouts
        self.scaling: ArrayRecord | None = None  # goes with every message
        self._node_of = self._find()

    def _find(self) -> dict[int, int]:
        """Node id by client id; waits until all are there."""
        deadline = time.monotonic() + self._timeouts.join_s
        while True:
            by_name = {node.name: node.node_id for node in self._grid.get_nodes()}
            missing = [site for site in self._sites.values() if site not in by_name]
            if not missing:
                return {client: by_name[site] for client, site in self._sites.items()}
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"{', '.join(missing)} not online after {self._timeouts.join_s:.0f} s: is fedimb node run running "
                    "there, with the key that was registered? resume when they are, or go on without in a new run: "
                    "fedimb deploy remove-site, and a plan with clients.count of those that stay"
                )
            time.sleep(min(1.0, self._timeouts.look_s))

    def run_lanes(self, lanes: Sequence[Lane], reduce: Reduction, costs: Sequence[float]) -> list[LaneOutcome]:
        """All messages at once; answers are sorted into lanes, so every engine adds in the same order."""
        instructions = {client: message for lane in lanes for client, message in lane}
        replies = self.ask(instructions, self._timeouts.deadline_s)
        for client in instructions.keys() - replies.keys():
            late = f"no answer within {self._timeouts.deadline_s:g} s (clients.deadline_s); left out of this step"
            replies[client] = Message(Error(code=CLIENT_FAILED, reason=late), reply_to=instructions[client])
        outcomes = in_lanes(lanes, instructions, screened(instructions, replies, self._sites), reduce)
        for answer in (answer for outcome in outcomes for answer in outcome.replies):
            if answer.error is None or answer.error.startswith("empty"):
                continue
            site = self._sites[answer.client]
            if not _names(answer.error, site):
                answer.error = f"{site}: {answer.error}"
            self.event(answer.client, answer.error)
        return outcomes

    def ask(self, instructions: Mapping[int, Message], deadline_s: float | None) -> dict[int, Message]:
        """Replies by client id of those that answered in time. Raises RunWaiting where a site waits for a person."""
        open_, replies = _Open(self, instructions), dict[int, Message]()
        started = looked = time.monotonic()
        while len(replies) < len(instructions):
            now = time.monotonic()
            if deadline_s is not None and now - started > deadline_s:
                break
            for client, reply in open_.pull():
                if _code(reply) in AWAY:
                    open_.away[client] = reply
                    self.event(client, "is away; asked again when it is back")
                    continue
                replies[client] = reply
                self._note(client, reply)
            if now - started > self._timeouts.away_s:
                replies |= open_.away  # as they are: errors
                open_.away.clear()
            if now - looked > self._timeouts.look_s:
                looked = now
                open_.push_again()
            if len(replies) < len(instructions):
                time.sleep(self._timeouts.poll_s)
        self._refuse_waiting(replies)
        return replies

    def activations(self) -> dict[int, str]:
        """When each node that is online was last let in, by client id."""
        online = {node.node_id: str(node.last_activated_at) for node in self._grid.get_nodes()}
        return {client: online[node] for client, node in self._node_of.items() if node in online}

    def deliver(self, messages: Mapping[int, Message]) -> dict[str, int]:
        """Hand messages to the SuperLink: client id by the id of its message."""
        sent = [self._sent(client, order) for client, order in messages.items()]
        ids = list(self._grid.push_messages(sent))
        refused = [self._sites[client] for client, id_ in zip(messages, ids, strict=False) if id_ is None]
        if refused or len(ids) < len(sent):
            raise RunFailed(
                f"the SuperLink did not take the message for {', '.join(refused) or 'any site'}; see its log"
            )
        return dict(zip(ids, messages, strict=True))

    def pull(self, ids: Iterable[str]) -> list[Message]:
        """Replies that are there."""
        return list(self._grid.pull_messages(list(ids)))

    def _sent(self, client: int, order: Message) -> Message:
        content = dict(order.content)
        if self.scaling is not None:
            content[names.SCALING] = self.scaling
        return Message(RecordDict(content), self._node_of[client], order.metadata.message_type)

    def event(self, client: int, text: str) -> None:
        """Something happened to a site: for ``fedimb deploy run``, which watches from another process, and the log."""
        site = self._sites[client]
        said = text if _names(text, site) else f"{site} {text}"
        log.warning("%s", said)
        event = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "site": site, "text": said}
        with open(self._folder / EVENTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")

    def _note(self, client: int, reply: Message) -> None:
        """Keep the number and hash of the site's audit line: a log rewritten later no longer agrees with them."""
        head = take_head(reply)
        if head is not None:
            heads = self._folder / "heads"
            heads.mkdir(parents=True, exist_ok=True)
            with open(heads / f"{self._sites[client]}.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({"line": head.line, "sha": head.sha}) + "\n")

    def _refuse_waiting(self, replies: Mapping[int, Message]) -> None:
        waits = [str(replies[c].error.reason) for c in sorted(replies) if _code(replies[c]) == WAITING]
        if waits:
            raise RunWaiting(f"waiting: {'; '.join(text.removeprefix('waiting: ') for text in waits)}")

    def each(self, kind: str, content: Callable[[int], dict[str, Any]]) -> dict[int, Message]:
        """One query to every site, before the loop begins; ``content`` by client id, of plain values."""
        instructions = {
            client: Message(RecordDict({names.RUN: ConfigRecord(content(client))}), node, f"query.{kind}")
            for client, node in self._node_of.items()
        }
        return self.ask(instructions, self._timeouts.join_s)


class _Open:
    """Messages of one exchange that are under way, and the sites that are away."""

    def __init__(self, grid: DeployedGrid, instructions: Mapping[int, Message]) -> None:
        self._grid, self._orders = grid, instructions
        self._ids: dict[str, int] = {}
        self._let_in = grid.activations()
        self.away: dict[int, Message] = {}
        """With the error that stands for an answer. A message to an absent node would be answered as many times."""
        for client in instructions.keys() - self._let_in.keys():
            self.away[client] = Message(
                Error(code=AWAY[-1], reason="the node is not online"), reply_to=instructions[client]
            )
            grid.event(client, "is not online; asked when it is back")
        self._push(sorted(instructions.keys() & self._let_in.keys()))

    def _push(self, clients: Sequence[int]) -> None:
        if clients:
            self._ids |= self._grid.deliver({client: self._orders[client] for client in clients})

    def pull(self) -> list[tuple[int, Message]]:
        """Answers that have come, each once."""
        found = []
        for reply in self._grid.pull(self._ids) if self._ids else ():
            client = self._ids.pop(reply.metadata.reply_to_message_id, None)
            if client is not None:
                found.append((client, reply))
        return found

    def push_again(self) -> None:
        """Ask those again that are back, or that were restarted and so lost the message they had taken."""
        now = self._grid.activations()
        back = self.away.keys() & now.keys()
        lost = {c for c in self._ids.values() if c in now and now[c] != self._let_in[c]}
        for client in lost:
            self._grid.event(client, "was restarted before it answered; asked again")
        self._ids = {id_: client for id_, client in self._ids.items() if client not in lost}
        self._let_in |= {client: now[client] for client in back | lost}
        for client in back:
            del self.away[client]
        self._push(sorted(back | lost))


def _names(text: str, site: str) -> bool:
    """Whether a text names a site: ``va`` is in "the value" and is not named by it."""
    return re.search(rf"(?<![\w-]){re.escape(site)}(?![\w-])", text) is not None


def _code(reply: Message) -> int | None:
    return reply.error.code if reply.has_error() else None


def take_head(reply: Message) -> Head | None:
    """At the coordinator: the line's number and hash out of a node's reply, which then is as the client made it.

    Keep them per site (JSON lines ``{"line": 7, "sha": "..."}``): ``fedimb node audit verify --heads FILE`` compares.
    """
    if reply.has_error() or names.AUDIT not in reply.content:
        return None
    told: dict[str, Any] = dict(reply.content.config_records[names.AUDIT])
    del reply.content[names.AUDIT]
    return Head(int(told["line"]), str(told["sha"]))
