"""A Flower Grid whose nodes are simulated clients, and the function that exchanges messages over any Grid."""

import itertools
import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedimb.contracts.platform import STEP
from fedimb.engine.admission import Admission
from fedimb.engine.channel import Channel
from fedimb.engine.flower_private import Run, ensure_identity, number
from fedimb.engine.lanes import Instruction, Lane, LaneOutcome, Reduction, cut_lanes, gather, merge_lanes
from fedimb.errors import traceback_of

CLIENT_FAILED = 1300
"""Error code of a client that raised."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to simulate any client of a run.

    Attributes:
        run_dir: run folder with the saved partition (also where client state goes).
        config_json: resolved configuration.
        n_clients: clients of the federation.
    """

    run_dir: str
    config_json: str
    n_clients: int

    @property
    def stacked(self) -> bool:
        """Whether many clients are trained at once (``engine.trainer``)."""
        engine: dict[str, str] = json.loads(self.config_json).get("engine", {})
        return engine.get("trainer") == "stacked"

    def context(self, client: int) -> Context:
        """The Flower Context of one simulated client."""
        return Context(
            run_id=1,
            node_id=client + 1,
            node_config={"partition-id": client, "num-partitions": self.n_clients, "run-dir": self.run_dir},
            state=RecordDict(),
            run_config={"cfg-json": self.config_json},
        )


def deliver(app: ClientApp, message: Message, context: Context, client: int) -> Message:
    """Call a ClientApp; an exception becomes an error reply with client, round and message type, and with a traceback
    unless its message says all (see `fedimb.errors.traceback_of`).
    """
    try:
        return app(message, context)
    except Exception as error:  # a failed client is reported to the server and must not end the run
        step = dict(message.content.config_records.get(STEP) or {})
        where = f"client {client}, round {step.get('round', '?')!r}, {message.metadata.message_type}"
        where = ", ".join([where, *getattr(error, "__notes__", [])])  # in local step 3 of 20
        reason = "\n".join(filter(None, (f"{where}: {type(error).__name__}: {error}", traceback_of(error))))
        return Message(Error(code=CLIENT_FAILED, reason=reason), reply_to=message)


class SimulationGrid(Grid):
    """Implements Flower's public Grid over clients 0..n-1 (node id = client id + 1).

    Stock strategies and ServerApps use `send_and_receive`; fedimb's loop uses `exchange`, which runs lanes and can
    return their sum instead of every reply.

    Attributes:
        admission: checks the replies where they are first read; None: another program than fedimb's loop sends them.
    """

    admission: Admission | None = None

    def __init__(self, n_clients: int) -> None:
        ensure_identity()
        self.n_clients = n_clients
        self._ids = itertools.count(1)
        self._replies: dict[str, Message] = {}

    def channel(self) -> Channel | None:
        """Messages and replies one by one, where replies come at times that nobody knows before; None: they do not."""
        return None

    @abstractmethod
    def run_lanes(self, lanes: Sequence[Lane], reduce: Reduction, costs: Sequence[float]) -> list[LaneOutcome]:
        """Run lanes; returns their outcomes in lane order. ``costs``: any estimate, the longest goes first."""

    def exchange(
        self, instructions: Sequence[Instruction], reduce: Reduction, costs: Sequence[float] | None = None
    ) -> LaneOutcome:
        """Send one message to each client and return replies and sums. ``instructions`` must be sorted by client id."""
        for _, message in instructions:
            number(message, str(next(self._ids)))
        lanes = cut_lanes(len(instructions))
        weights = [sum(costs[lane]) if costs is not None else len(instructions[lane]) for lane in lanes]
        return merge_lanes(self.run_lanes([instructions[lane] for lane in lanes], reduce, weights))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Flower's own call: one reply per message, sorted by client id. ``timeout`` is ignored."""
        sent = sorted(messages, key=lambda m: m.metadata.dst_node_id)
        outcome = self.exchange([(m.metadata.dst_node_id - 1, m) for m in sent], reduce=False)
        replies = []
        for message, reply in zip(sent, outcome.replies, strict=True):
            if reply.error is not None and not len(reply.content):
                replies.append(Message(Error(code=CLIENT_FAILED, reason=reply.error), reply_to=message))
            else:
                replies.append(Message(reply.content, reply_to=message))
        return replies

    def get_node_ids(self) -> Iterable[int]:
        """Node ids 1..n."""
        return range(1, self.n_clients + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the clients at once; the replies wait to be pulled."""
        sent = list(messages)
        replies = list(self.send_and_receive(sent))
        for reply in replies:
            self._replies[reply.metadata.reply_to_message_id] = reply
        return [m.metadata.message_id for m in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to messages pushed earlier."""
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message (Flower's older API for it)."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def set_run(self, run: Run) -> None:
        """A simulation has one run; nothing to set."""

    @property
    def run(self) -> Run:
        """A simulation is not registered with a SuperLink, so there is no Run to return."""
        raise RuntimeError("a simulated grid has no SuperLink run")


def exchange(
    grid: Grid,
    instructions: Sequence[Instruction],
    reduce: Reduction,
    costs: Sequence[float] | None = None,
    admission: Admission | None = None,
) -> LaneOutcome:
    """Exchange messages over any Grid with the same order and sums, so that results agree everywhere.

    A grid that is not simulated may return fewer replies: a missing reply becomes an error reply.
    """
    if isinstance(grid, SimulationGrid):
        grid.admission = admission
        return grid.exchange(instructions, reduce, costs)
    by_node = {message.metadata.dst_node_id: client for client, message in instructions}
    replies: dict[int, Message] = {}
    for reply in grid.send_and_receive([message for _, message in instructions]):
        replies[by_node[reply.metadata.src_node_id]] = reply
    missing = Error(code=CLIENT_FAILED, reason="no reply")
    ordered = [(client, replies.get(client) or Message(missing, reply_to=message)) for client, message in instructions]
    return gather(ordered, reduce, dict(instructions), admission)


__all__ = ["CLIENT_FAILED", "Job", "SimulationGrid", "deliver", "exchange"]
