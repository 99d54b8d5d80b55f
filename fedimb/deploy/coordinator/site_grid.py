"""Hospital nodes as the clients of the run loop: addressed by name, with retries for nodes that come back.

All messages are sent at once. A node that Flower reports as away gets the same message again when it is back; a
client's state is versioned by message, so answering twice gives the same reply. Flower does not report a node that
restarted within its heartbeat and so lost a message it had taken; its last activation time shows that.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedimb.contracts import platform as names
from fedimb.contracts.platform import AUDIT_HEAD
from fedimb.deploy.audit_chain import Head
from fedimb.deploy.coordinator.rejoin import Rejoin
from fedimb.deploy.coordinator.screen import LEFT_OUT, screen_replies
from fedimb.deploy.coordinator.signed_messages import LOST_BY_FLOWER, SignedMessages
from fedimb.deploy.incidents import WAITING
from fedimb.deploy.signing import Order
from fedimb.engine.flower_grid import in_lanes
from fedimb.engine.grid import CLIENT_FAILED, SimulationGrid
from fedimb.engine.lanes import Lane, LaneOutcome, Reduction
from fedimb.engine.record_checks import Refusal, Sizes, check_record
from fedimb.errors import RunFailed, RunWaiting
from fedimb.text import clean_text

log = logging.getLogger("fedimb")

AWAY = LOST_BY_FLOWER
"""Flower's codes for a message or reply that was lost because a node went away."""
EVENTS = "sites.jsonl"
"""File in the run folder: events at sites, one JSON object per line with ``time``, ``site``, ``text``."""


@dataclass(frozen=True)
class Timeouts:
    """How long a coordinator waits, in seconds.

    Attributes:
        join_s: for all sites to be online at the start, and again for all of them to join.
        away_s: in total, for nodes that go away during an exchange.
        deadline_s: for an exchange of the run; sites that have not replied by then are left out. None: no limit.
        poll_s: between polls for replies.
        check_s: between checks of which nodes are online.
    """

    join_s: float = 300.0
    away_s: float = 1800.0
    deadline_s: float | None = None
    poll_s: float = 0.3
    check_s: float = 3.0


class DeployedGrid(SimulationGrid):
    """The sites of a deployment.

    Args:
        grid: Flower's Grid, as passed to the ServerApp.
        sites: names of the sites in client-id order.
        folder: the run folder; gets the sites' audit heads in ``heads/<site>.jsonl`` and events in `EVENTS`.
        timeouts: see `Timeouts`.
        signed: signs messages and checks replies, see `SignedMessages`.
        aside: client ids of sites that are set aside: they are neither waited for nor asked.
        rejoin: sites that joined an earlier ServerApp of this run: they are not waited for, and join again first.

    Attributes:
        scaling: goes with every message; None: nothing does.
        meanwhile: called again and again while replies are waited for.
    """

    def __init__(
        self,
        grid: Grid,
        sites: Sequence[str],
        folder: Path,
        timeouts: Timeouts,
        signed: SignedMessages,
        aside: frozenset[int] = frozenset(),
        rejoin: Rejoin | None = None,
    ) -> None:
        super().__init__(len(sites))
        self._signed, self._orders = signed, dict[str, Order]()
        self._grid, self._sites, self._folder, self._timeouts = grid, dict(enumerate(sites)), folder, timeouts
        self.scaling: ArrayRecord | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        self._unreadable: dict[int, Refusal] = {}  # of the replies to the last messages
        self._aside, self.rejoin = aside, rejoin or Rejoin()
        self._node_of = self._find_nodes()

    def _find_nodes(self) -> dict[int, int]:
        """Node id by client id; waits until all sites are online that must not join again."""
        deadline = time.monotonic() + self._timeouts.join_s
        while True:
            by_name = {node.name: node.node_id for node in self._grid.get_nodes()}
            asked = {client: site for client, site in self._sites.items() if client not in self._aside}
            missing = [site for c, site in asked.items() if site not in by_name and c not in self.rejoin.open]
            if not missing:
                return {client: by_name[site] for client, site in asked.items() if site in by_name}
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"{', '.join(missing)} not online after {self._timeouts.join_s:.0f} s: check that fedimb node run "
                    "runs there, with the registered key, then resume; or leave them out: run fedimb deploy "
                    "remove-site and make a plan with clients.count of the remaining sites"
                )
            time.sleep(min(1.0, self._timeouts.check_s))

    def run_lanes(self, lanes: Sequence[Lane], reduce: Reduction, costs: Sequence[float]) -> list[LaneOutcome]:
        """Send all messages at once. Replies are put in the order of the lanes, as on every engine."""
        instructions = {client: message for lane in lanes for client, message in lane}
        replies = self.ask(instructions, self._timeouts.deadline_s)
        for client in instructions.keys() - replies.keys():
            late = f"no reply within {self._timeouts.deadline_s:.4g} s (clients.deadline_s); left out of this step"
            replies[client] = Message(Error(code=CLIENT_FAILED, reason=late), reply_to=instructions[client])
        kept, left_out = screen_replies(instructions, replies, self._sites, self.admission)
        left_out |= self._unreadable
        outcomes = in_lanes(lanes, instructions, kept, reduce, self.admission)
        for reply in (reply for outcome in outcomes for reply in outcome.replies):
            if reply.error is None or reply.error.startswith("empty"):
                continue
            reply.refused = reply.refused or left_out.get(reply.client)
            site = self._sites[reply.client]
            if not _names(reply.error, site):
                reply.error = f"{site}: {reply.error}"
            self.event(reply.client, reply.error)
        return outcomes

    def ask(self, instructions: Mapping[int, Message], deadline_s: float | None) -> dict[int, Message]:
        """Send messages and wait. Returns the replies that arrived in time, by client id.

        Raises:
            RunWaiting: a site is waiting for a person.
        """
        open_, replies = SiteMessages(self), dict[int, Message]()
        open_.add(instructions)
        self._unreadable.clear()
        started = looked = time.monotonic()
        while len(replies) < len(instructions):
            now = time.monotonic()
            if deadline_s is not None and now - started > deadline_s:
                break
            for client, reply in open_.pull():
                if is_away(reply):
                    open_.away[client] = reply
                    self.event(client, "is away; asked again when it is back")
                    continue
                replies[client] = self.taken(client, reply, instructions[client])
            if now - started > self._timeouts.away_s:
                replies |= open_.away  # errors, kept as they are
                open_.away.clear()
            if now - looked > self._timeouts.check_s:
                looked = now
                open_.push_again()
            if len(replies) < len(instructions):
                self.meanwhile()
                time.sleep(self._timeouts.poll_s)
        self.refuse_waiting(replies)
        return replies

    def taken(self, client: int, reply: Message, request: Message) -> Message:
        """A site's reply, with what the coordinator itself reads of it taken out and kept."""
        return self._note(client, self._readable(client, reply, request))

    @property
    def sites(self) -> Mapping[int, str]:
        """Names of the sites by client id."""
        return self._sites

    @property
    def timeouts(self) -> Timeouts:
        """How long is waited."""
        return self._timeouts

    def set_deadline(self, seconds: float | None) -> None:
        """From now on sites have so long for an exchange; None: no limit."""
        self._timeouts = replace(self._timeouts, deadline_s=seconds)

    def unreadable(self, client: int) -> Refusal | None:
        """What in the site's last reply could not be read; None: nothing. It is told once."""
        return self._unreadable.pop(client, None)

    def activations(self) -> dict[int, str]:
        """When each online node was last activated, by client id."""
        nodes = list(self._grid.get_nodes())
        online = {node.node_id: str(node.last_activated_at) for node in nodes}
        if unseen := self.rejoin.open - self._node_of.keys() - self._aside:
            by_name = {node.name: node.node_id for node in nodes}
            self._node_of |= {c: by_name[self._sites[c]] for c in sorted(unseen) if self._sites[c] in by_name}
        return {client: online[node] for client, node in self._node_of.items() if node in online}

    def deliver(self, messages: Mapping[int, Message]) -> dict[str, int]:
        """Hand messages to the SuperLink. Returns client ids by message id."""
        orders = [self._order(client, message) for client, message in messages.items()]
        sent = [message for message, _ in orders]
        ids = list(self._grid.push_messages(sent))
        refused = [self._sites[client] for client, id_ in zip(messages, ids, strict=False) if id_ is None]
        if refused or len(ids) < len(sent):
            raise RunFailed(
                f"the SuperLink did not take the message for {', '.join(refused) or 'any site'}; see its log"
            )
        self._orders |= {id_: order for id_, (_, order) in zip(ids, orders, strict=True)}
        return dict(zip(ids, messages, strict=True))

    def pull(self, ids: Iterable[str]) -> list[Message]:
        """Fetch the replies that have arrived."""
        return list(self._grid.pull_messages(list(ids)))

    def check(self, client: int, message: Message, reply: Message) -> Message:
        """The reply, if the site signed it for the message it answers; else an error that says so."""
        order = self._orders.pop(reply.metadata.reply_to_message_id)
        return self._signed.check(client, order, message, reply)

    def _order(self, client: int, message: Message) -> tuple[Message, Order]:
        return self._signed.order(client, self._sent(client, message), self._node_of[client])

    def _sent(self, client: int, message: Message) -> Message:
        content = dict(message.content)
        if self.scaling is not None:
            content[names.SCALING] = self.scaling
        return Message(RecordDict(content), self._node_of[client], message.metadata.message_type)

    def event(self, client: int, text: str) -> None:
        """Record an event at a site: in the log, and for ``fedimb deploy run``, which watches from another process."""
        site = self._sites[client]
        line = text if _names(text, site) else f"{site} {text}"
        log.warning("%s", line)
        event = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "site": site, "text": line}
        with open(self._folder / EVENTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")

    def _note(self, client: int, reply: Message) -> Message:
        """Keep the number and hash of the site's audit line: a log that is rewritten later no longer matches them."""
        head = pop_audit_head(reply)
        if head is not None:
            heads = self._folder / "heads"
            heads.mkdir(parents=True, exist_ok=True)
            with open(heads / f"{self._sites[client]}.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({"line": head.line, "sha": head.sha}) + "\n")
        return reply

    def _readable(self, client: int, reply: Message, request: Message) -> Message:
        """The reply with what the coordinator itself reads of it checked: an error's text as one clean line, and the
        audit line's number and hash. A reply whose audit line is not as declared becomes an error.
        """
        if reply.has_error():
            text = clean_text(reply.error.reason or f"error {reply.error.code}")
            return Message(Error(code=reply.error.code, reason=text), reply_to=request)
        head = reply.content.get(names.AUDIT)
        if head is None:
            return reply
        wrong: Refusal | None = Refusal(names.AUDIT, "", "is not declared as such a record")
        if isinstance(head, ConfigRecord):
            wrong = check_record(AUDIT_HEAD, head, None, Sizes({}, ()), {})
        if wrong is None:
            return reply
        self._unreadable[client] = wrong
        return Message(Error(code=LEFT_OUT, reason=f"{wrong}; left out"), reply_to=request)

    def refuse_waiting(self, replies: Mapping[int, Message]) -> None:
        """Raise RunWaiting if a site waits for a person."""
        reasons = [str(replies[c].error.reason) for c in sorted(replies) if _code(replies[c]) == WAITING]
        if reasons:
            raise RunWaiting(f"waiting: {'; '.join(text.removeprefix('waiting: ') for text in reasons)}")

    def query_all(self, kind: str, content: Callable[[int], dict[str, Any]]) -> dict[int, Message]:
        """Send one query to every site, before the loop starts. ``content`` gives its plain values by client id."""
        instructions = {
            client: Message(RecordDict({names.RUN: ConfigRecord(content(client))}), node, f"query.{kind}")
            for client, node in self._node_of.items()
        }
        return self.ask(instructions, self._timeouts.join_s)


class SiteMessages:
    """Messages that sites have not answered yet, and the sites that are away."""

    def __init__(self, grid: DeployedGrid) -> None:
        self._grid = grid
        self._instructions: dict[int, Message] = {}
        self._ids: dict[str, int] = {}
        self._sent: dict[int, Message] = {}  # what a site has been asked: its message, or first to join again
        self._let_in: dict[int, str] = {}
        self.away: dict[int, Message] = {}
        """Clients that are away, each with the error that stands in for its reply."""

    def add(self, instructions: Mapping[int, Message]) -> None:
        """Send messages; a client has one at a time. One that is not online is asked when it is back."""
        online = self._grid.activations()
        self._instructions |= instructions
        for client in instructions.keys() - online.keys():
            self.mark_away(client, Error(code=AWAY[-1], reason="the node is not online"))
            self._grid.event(client, "is not online; asked when it is back")
        asked = sorted(instructions.keys() & online.keys())
        self._let_in |= {client: online[client] for client in asked}
        self._push(asked)

    def mark_away(self, client: int, error: Error) -> None:
        """The client is away: nothing of it comes until it is back."""
        self.away[client] = Message(error, reply_to=self._instructions[client])

    def _push(self, clients: Sequence[int]) -> None:
        if clients:
            sent = {client: self._grid.rejoin.first(client, self._instructions[client]) for client in clients}
            self._sent |= sent
            self._ids |= self._grid.deliver(sent)

    def pull(self) -> list[tuple[int, Message]]:
        """Replies that have arrived since the last call."""
        found: list[tuple[int, Message]] = []
        joined: list[int] = []
        for reply in self._grid.pull(self._ids) if self._ids else ():
            client = self._ids.pop(reply.metadata.reply_to_message_id, None)
            if client is None:
                continue
            sent, message = self._sent[client], self._instructions[client]
            checked = self._grid.check(client, sent, reply)
            if sent is message:
                found.append((client, checked))
            elif is_away(checked):
                found.append((client, Message(checked.error, reply_to=message)))
            elif (error := self._grid.rejoin.refusal(client, self._grid.taken(client, checked, sent))) is not None:
                found.append((client, Message(error, reply_to=message)))
            else:
                joined.append(client)
        self._push(joined)
        return found

    def push_again(self) -> None:
        """Resend to nodes that are back, or that were restarted and so lost the message they had taken."""
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
    """Whether a text names a site as a whole word: "the value" does not name ``va``."""
    return re.search(rf"(?<![\w-]){re.escape(site)}(?![\w-])", text) is not None


def is_away(reply: Message) -> bool:
    """Whether a reply is Flower's error for a site that went away."""
    return _code(reply) in AWAY


def _code(reply: Message) -> int | None:
    return reply.error.code if reply.has_error() else None


def pop_audit_head(reply: Message) -> Head | None:
    """Remove the audit line's number and hash from a node's reply, which is then as the client made it.

    Keep them per site (JSON lines ``{"line": 7, "sha": "..."}``): ``fedimb node audit verify --heads FILE`` compares
    them.
    """
    if reply.has_error() or names.AUDIT not in reply.content:
        return None
    head: dict[str, Any] = dict(reply.content.config_records[names.AUDIT])
    del reply.content[names.AUDIT]
    return Head(int(head["line"]), str(head["sha"]))
