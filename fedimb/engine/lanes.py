"""Lanes: the unit of dispatch and summation.

A cohort, sorted by client id, is cut into at most 32 contiguous lanes. A lane adds its clients in id order and the
driver adds lanes in order, so floating-point sums do not depend on timing or on the number of workers.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from fedimb.by_reference import view
from fedimb.contracts import platform as names
from fedimb.contracts.optimizer import CLIENT
from fedimb.engine.admission import Admission
from fedimb.engine.record_checks import Refusal
from fedimb.errors import FedimbError
from fedimb.evaluation.confusion import hits_and_support
from fedimb.records import Arrays, payload_bytes

MAX_LANES = 32
WEIGHT = names.WEIGHT

Instruction = tuple[int, Message]
"""The stable id of a client, and the message sent to it."""

Lane = Sequence[Instruction]
"""Instructions to consecutive clients of a cohort, sorted by client id."""


class Summing(Protocol):
    """How an aggregator wants a round's clients summed (see `fedimb.aggregators.server_optimizer.ServerOptimizer`)."""

    def read(self, metrics: Mapping[str, Any], received: ArrayRecord, trained: ArrayRecord) -> dict[str, float]:
        """One client's scalars, kept with its reply. Raises FedimbError when the reply is not usable."""
        ...

    def checked_weights(self, client: Mapping[str, float]) -> dict[str, float]:
        """The client's weight in each mean, by the mean's name, computed from its id and its scalars.

        Raises RunFailed when the method's own code is at fault.
        """
        ...


Reduction = bool | Summing
"""What a lane does with replies: keep them (False), sum them by ``num-examples`` (True), or as a `Summing` says."""


@dataclass
class ClientReply:
    """One client's reply as the server keeps it.

    Attributes:
        client: stable id.
        error: why there is no usable reply, or None.
        content: the reply; after reduction only the records that were not summed.
        metrics: the reply's scalar metrics (``num-examples`` is its weight).
        up_bytes: payload bytes of the whole reply, before reduction.
        usable: whether the aggregator may use it (no error, weight > 0, weight and all arrays finite).
        diverged: not usable because it holds a value that is not finite.
        refused: what in it is not as its contract or the plan says; None: nothing.
        hits, support: correctly classified rows and all rows of each class [C] int64, from its confusion matrix, or
            None; the matrix itself is summed.
    """

    client: int
    error: str | None = None
    content: RecordDict = field(default_factory=RecordDict)
    metrics: dict[str, float] = field(default_factory=dict)
    up_bytes: int = 0
    usable: bool = True
    diverged: bool = False
    refused: Refusal | None = None
    hits: np.ndarray | None = None
    support: np.ndarray | None = None


@dataclass
class LaneSum:
    """Weighted sums over clients: float64 for weights and buffers, exact integers for confusion matrices.

    Attributes:
        weight: sum of the clients' weights.
        arrays: weighted sum of the trainable arrays, by name.
        buffers: weighted sum of the model's buffers, by name.
        confusion: sum of the confusion matrices, or None.
        means: a sum of arrays for each mean that a `Summing` asks for; ``arrays`` is then empty.
    """

    weight: float = 0.0
    arrays: Arrays = field(default_factory=dict)
    buffers: Arrays = field(default_factory=dict)
    confusion: np.ndarray | None = None
    means: dict[str, "LaneSum"] = field(default_factory=dict)

    def add(self, other: "LaneSum") -> None:
        """Add another sum to this one, in place."""
        self.weight += other.weight
        for mine, theirs in ((self.arrays, other.arrays), (self.buffers, other.buffers)):
            for key, value in theirs.items():
                if key in mine:
                    mine[key] += value
                else:
                    mine[key] = value.copy()
        self.add_confusion(other.confusion)
        for name, theirs_too in other.means.items():
            self.means.setdefault(name, LaneSum()).add(theirs_too)

    def add_reply(self, weight: float, content: RecordDict) -> None:
        """Add one client's weighted arrays and buffers, in place.

        Example:
            >>> from fedimb.records import array_record
            >>> total = LaneSum()
            >>> for rows, weight in ((30, 1.0), (10, 5.0)):
            ...     reply = array_record({"w": np.array([weight], np.float32)})
            ...     total.add_reply(rows, RecordDict({"arrays": reply}))
            >>> total.arrays["w"] / total.weight
            array([2.])
        """
        self.weight += weight
        for sums, key in ((self.arrays, names.ARRAYS), (self.buffers, names.BUFFERS)):
            if key not in content:
                continue
            for name, array in cast(ArrayRecord, content[key]).items():
                term = np.multiply(view(array), weight, dtype=np.float64)
                if name in sums:
                    sums[name] += term
                else:
                    sums[name] = term

    def add_to_means(self, summing: Summing, reply: ClientReply, scalars: Mapping[str, float]) -> None:
        """Add one client's reply to each mean, and its buffers as usual; its scalars are kept with the reply.

        Raises:
            RunFailed: see `Summing.checked_weights`.
        """
        trained = cast(ArrayRecord, reply.content[names.ARRAYS])
        reply.metrics |= scalars
        for name, weight in summing.checked_weights({CLIENT: reply.client, **scalars}).items():
            self.means.setdefault(name, LaneSum()).add_reply(weight, RecordDict({names.ARRAYS: trained}))
        rest = RecordDict({key: record for key, record in reply.content.items() if key == names.BUFFERS})
        self.add_reply(reply.metrics[WEIGHT], rest)

    def add_confusion(self, matrix: np.ndarray | None) -> None:
        """Add a confusion matrix [C, C] int64, or [C, 2, 2] for several labels per row, in place."""
        if matrix is not None:
            self.confusion = matrix.copy() if self.confusion is None else self.confusion + matrix


@dataclass
class LaneOutcome:
    """What a lane returns: its clients' replies in id order, and their sum if it reduces."""

    replies: list[ClientReply]
    total: LaneSum


def cut_lanes(count: int) -> list[slice]:
    """Cut ``count`` clients into min(32, count) contiguous lanes whose sizes differ by at most one.

    Example:
        >>> [(lane.start, lane.stop) for lane in cut_lanes(5)]
        [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
        >>> lanes = cut_lanes(100)
        >>> len(lanes), max(lane.stop - lane.start for lane in lanes)
        (32, 4)
    """
    lanes = min(MAX_LANES, count)
    edges = [count * i // lanes for i in range(lanes + 1)] if lanes else [0]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def read_reply(
    client: int, message: Message, sent: Message | None = None, admission: Admission | None = None
) -> ClientReply:
    """Turn a reply message into a ClientReply and decide whether it is usable.

    Args:
        sent: the message that the client replied to.
        admission: checks the reply before anything else reads it; None: only what lanes need is checked.
    """
    if message.has_error():
        return ClientReply(client, error=message.error.reason or f"error {message.error.code}", usable=False)
    refused = None if admission is None else admission.refusal(client, message, sent)
    if refused is not None:
        return ClientReply(client, error=str(refused), usable=False, diverged=refused.not_finite, refused=refused)
    content = message.content
    reply = ClientReply(client, content=content, up_bytes=payload_bytes(content))
    trained = (sent or message).metadata.message_type.partition(".")[0] == "train"
    if trained and (missing := [key for key in (names.ARRAYS, names.METRICS) if key not in content]):
        reply.usable = False
        reply.error = f"the train reply holds no record '{missing[0]}'; a client must send its weights and metrics"
        return reply
    if names.METRICS not in content:
        return reply
    reply.metrics = {
        k: float(v) for k, v in cast(MetricRecord, content[names.METRICS]).items() if not isinstance(v, list)
    }
    weight = reply.metrics.get(WEIGHT, 0.0)
    if not math.isfinite(weight):  # one NaN weight would make every sum NaN
        reply.usable = False
        reply.error = f"its weight {WEIGHT} is {weight}, not finite; fix what the client reports"
    elif weight <= 0:
        reply.usable = False
        reply.error = "empty: no rows to train on"
    elif not all(_finite(r) for r in content.values() if isinstance(r, ArrayRecord)):
        reply.usable, reply.diverged = False, True
        reply.error = "the reply holds a value that is not finite (diverged?); lower local.lr"
    return reply


def _finite(record: ArrayRecord) -> bool:
    arrays = (view(array) for array in record.values())
    # One sum is faster than a flag per value. It may overflow although no value does, so only a finite sum is trusted.
    return all(math.isfinite(a.sum()) or bool(np.isfinite(a).all()) for a in arrays if a.dtype.kind == "f")


def gather(
    messages: Iterable[tuple[int, Message]],
    reduce: Reduction,
    sent: Mapping[int, Message] | None = None,
    admission: Admission | None = None,
) -> LaneOutcome:
    """Collect one lane's replies, in client-id order, and (``reduce``) their sums, one reply at a time.

    Confusion matrices are always summed here and taken out, before any aggregator sees a reply.

    Args:
        sent: the message each client replied to; a `Summing` reads from it what the client received.
        admission: checks each reply before anything uses it.
    """
    total = LaneSum()
    replies = []
    for client, message in messages:
        reply = read_reply(client, message, None if sent is None else sent[client], admission)
        if names.CONFUSION in reply.content:
            matrix = cast(ArrayRecord, reply.content[names.CONFUSION])["matrix"].numpy()
            reply.hits, reply.support = hits_and_support(matrix)
            total.add_confusion(matrix)
            del reply.content[names.CONFUSION]
        if reduce:
            _reduce(total, reply, reduce, None if sent is None else sent[client])
        replies.append(reply)
    return LaneOutcome(replies, total)


def _reduce(total: LaneSum, reply: ClientReply, reduce: Reduction, sent: Message | None) -> None:
    """Add a reply to its lane's sum and remove what was summed from it, in place."""
    if reply.usable:
        _add(total, reply, reduce, sent)
    kept = (names.ARRAYS, names.BUFFERS, names.METRICS)
    reply.content = RecordDict({k: v for k, v in reply.content.items() if k not in kept})


def sum_replies(outcome: LaneOutcome, reduce: Reduction, sent: Mapping[int, Message]) -> LaneOutcome:
    """Sum replies that were kept, as their lanes would have: the same outcome to the bit.

    Args:
        outcome: of an exchange that kept every reply (``reduce=False``).
        sent: the message each client replied to.
    """
    if not reduce:
        return outcome
    lanes = []
    for lane in cut_lanes(len(outcome.replies)):
        total = LaneSum()
        for reply in outcome.replies[lane]:
            _reduce(total, reply, reduce, sent[reply.client])
        lanes.append(LaneOutcome(outcome.replies[lane], total))
    merged = merge_lanes(lanes)
    merged.total.confusion = outcome.total.confusion
    return merged


def _add(total: LaneSum, reply: ClientReply, reduce: Reduction, sent: Message | None) -> None:
    """Add a usable reply, in place; a reply that lacks what a `Summing` reads is marked as not usable."""
    if isinstance(reduce, bool):
        total.add_reply(reply.metrics[WEIGHT], reply.content)
        return
    assert sent is not None, "a Summing needs the messages that were sent"
    received, trained = (cast(ArrayRecord, message[names.ARRAYS]) for message in (sent.content, reply.content))
    try:
        scalars = reduce.read(reply.metrics, received, trained)
    except FedimbError as error:
        reply.usable, reply.error = False, str(error)
    else:
        total.add_to_means(reduce, reply, scalars)


def run_lane(
    instructions: Sequence[Instruction],
    call: Callable[[int, Message], Message],
    reduce: Reduction,
    admission: Admission | None = None,
) -> LaneOutcome:
    """Run a lane's clients one after another, keeping one reply in memory at a time when reducing."""
    replies = ((client, call(client, message)) for client, message in instructions)
    return gather(replies, reduce, dict(instructions), admission)


@dataclass(frozen=True)
class Ahead:
    """Work that is faster for many clients at once, done before their messages are handled one by one.

    Attributes:
        clients: roughly how many clients at a time; their replies wait in memory.
        work: does the work; the replies must be the same without it, within rounding.
    """

    clients: int
    work: Callable[[Sequence[Instruction]], None]


def ahead_of(context: Context) -> Ahead | None:
    """The work a run can do for many simulated clients at once; None where each client trains alone.

    Args:
        context: the Context of any client of the run.
    """
    from fedimb.clientapp.app import runtime

    answering = runtime(context)
    if answering.config.engine.get("trainer") != "stacked":
        return None
    return Ahead(answering.ahead_clients(), answering.work_ahead)


def run_lanes(
    lanes: Sequence[Lane],
    call: Callable[[int, Message], Message],
    reduce: Reduction,
    ahead: Ahead | None = None,
    admission: Admission | None = None,
) -> list[LaneOutcome]:
    """Run lanes in order and their clients in order; first does the ``ahead`` work for many clients at once."""
    outcomes: list[LaneOutcome] = []
    while len(outcomes) < len(lanes):
        group = list(lanes[len(outcomes) :])
        if ahead is not None:
            sizes = itertools.accumulate(len(lane) for lane in group)
            group = group[: max(1, sum(size <= ahead.clients for size in sizes))]
            ahead.work([instruction for lane in group for instruction in lane])
        outcomes += [run_lane(lane, call, reduce, admission) for lane in group]
    return outcomes


def merge_lanes(outcomes: Sequence[LaneOutcome]) -> LaneOutcome:
    """Merge lane outcomes, adding their sums in lane order."""
    total = LaneSum()
    for outcome in outcomes:
        total.add(outcome.total)
    return LaneOutcome([reply for outcome in outcomes for reply in outcome.replies], total)
