"""Lanes: the unit of dispatch and summation.

A cohort, sorted by client id, is cut into at most 32 contiguous lanes. A lane adds its clients in id order and the
driver adds lanes in order, so floating-point sums do not depend on time or on the number of workers.
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
from fedimb.errors import FedimbError
from fedimb.evaluation.confusion import hits_and_support
from fedimb.records import Arrays, payload_bytes

MAX_LANES = 32
WEIGHT = names.WEIGHT

Instruction = tuple[int, Message]
"""A message and the stable id of the client it goes to."""

Lane = Sequence[Instruction]
"""Instructions to clients next to each other, sorted by client id."""


class Summing(Protocol):
    """How an aggregator wants a round's clients summed; `fedimb.aggregators.server_optimizer.ServerOptimizer`."""

    def read(self, metrics: Mapping[str, Any], received: ArrayRecord, trained: ArrayRecord) -> dict[str, float]:
        """One client's scalars, kept with its reply. FedimbError: the reply is not usable."""
        ...

    def weights(self, client: Mapping[str, float]) -> dict[str, float]:
        """From its scalars, the client's weight in each mean, by the mean's name."""
        ...


Reduction = bool | Summing
"""What a lane does with replies: keep them (False), sum them by ``num-examples`` (True), or sum them as asked."""


@dataclass
class ClientReply:
    """One client's reply as the server keeps it.

    Attributes:
        client: stable id.
        error: why there is no usable reply, or None.
        content: the reply; after reduction only the records that were not summed.
        metrics: the reply's scalar metrics (``num-examples`` is its weight).
        up_bytes: payload bytes of the whole reply, before reduction.
        usable: whether the aggregator may see it (no error, weight > 0, weight and all arrays finite).
        diverged: not usable because a value of it is not finite.
        hits, support: rows found and rows there are of each class [C] int64, by its confusion matrix, or None; the
            matrix itself is summed.
    """

    client: int
    error: str | None = None
    content: RecordDict = field(default_factory=RecordDict)
    metrics: dict[str, float] = field(default_factory=dict)
    up_bytes: int = 0
    usable: bool = True
    diverged: bool = False
    hits: np.ndarray | None = None
    support: np.ndarray | None = None


@dataclass
class LaneSum:
    """Weighted sums over clients: float64 for weights and buffers, exact integers for confusion matrices.

    Attributes:
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

    def add_as_asked(self, summing: Summing, answer: ClientReply, received: ArrayRecord) -> None:
        """Add one client's reply to each mean, its buffers as ever; its scalars are kept with the reply.

        Raises:
            FedimbError: the reply is not usable.
        """
        trained = cast(ArrayRecord, answer.content[names.ARRAYS])
        scalars = summing.read(answer.metrics, received, trained)
        answer.metrics |= scalars
        for name, weight in summing.weights(scalars).items():
            self.means.setdefault(name, LaneSum()).add_reply(weight, RecordDict({names.ARRAYS: trained}))
        rest = RecordDict({key: record for key, record in answer.content.items() if key == names.BUFFERS})
        self.add_reply(answer.metrics[WEIGHT], rest)

    def add_confusion(self, matrix: np.ndarray | None) -> None:
        """Add a confusion matrix [C, C] int64, or [C, 2, 2] of several labels per row, in place."""
        if matrix is not None:
            self.confusion = matrix.copy() if self.confusion is None else self.confusion + matrix


@dataclass
class LaneOutcome:
    """What a lane returns: its clients' answers in id order, and their sum when it was asked to reduce."""

    replies: list[ClientReply]
    total: LaneSum


def cut(count: int) -> list[slice]:
    """Cut ``count`` clients into min(32, count) contiguous lanes whose sizes differ by at most one.

    Example:
        >>> [(lane.start, lane.stop) for lane in cut(5)]
        [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
        >>> lanes = cut(100)
        >>> len(lanes), max(lane.stop - lane.start for lane in lanes)
        (32, 4)
    """
    lanes = min(MAX_LANES, count)
    edges = [count * i // lanes for i in range(lanes + 1)] if lanes else [0]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def read_reply(client: int, reply: Message) -> ClientReply:
    """A reply message as a ClientReply, judged usable or not."""
    if reply.has_error():
        return ClientReply(client, error=reply.error.reason or f"error {reply.error.code}", usable=False)
    content = reply.content
    answer = ClientReply(client, content=content, up_bytes=payload_bytes(content))
    trained = reply.metadata.message_type.partition(".")[0] == "train"
    if trained and (missing := [key for key in (names.ARRAYS, names.METRICS) if key not in content]):
        answer.usable = False
        answer.error = f"the train reply holds no record '{missing[0]}'; a client must send its weights and metrics"
        return answer
    if names.METRICS not in content:
        return answer
    answer.metrics = {
        k: float(v) for k, v in cast(MetricRecord, content[names.METRICS]).items() if not isinstance(v, list)
    }
    weight = answer.metrics.get(WEIGHT, 0.0)
    if not math.isfinite(weight):  # one NaN weight would make every sum NaN
        answer.usable = False
        answer.error = f"its weight {WEIGHT} is {weight}, not finite; mend what the client reports"
    elif weight <= 0:
        answer.usable = False
        answer.error = "empty: no rows to train on"
    elif not all(_finite(r) for r in content.values() if isinstance(r, ArrayRecord)):
        answer.usable, answer.diverged = False, True
        answer.error = "the reply holds a value that is not finite (diverged?); lower local.lr"
    return answer


def _finite(record: ArrayRecord) -> bool:
    arrays = (view(array) for array in record.values())
    # One sum is quicker than a flag per value; it may overflow where no value does, so only a finite one is believed.
    return all(math.isfinite(a.sum()) or bool(np.isfinite(a).all()) for a in arrays if a.dtype.kind == "f")


def gather(
    replies: Iterable[tuple[int, Message]], reduce: Reduction, sent: Mapping[int, Message] | None = None
) -> LaneOutcome:
    """One lane's replies, in client-id order, as answers and (``reduce``) their sums, one reply at a time.

    Confusion matrices are always summed here and taken out, before any aggregator sees a reply.

    Args:
        sent: the message each client answered; a `Summing` reads from it what the client received.
    """
    total = LaneSum()
    answers = []
    for client, reply in replies:
        answer = read_reply(client, reply)
        if names.CONFUSION in answer.content:
            matrix = cast(ArrayRecord, answer.content[names.CONFUSION])["matrix"].numpy()
            answer.hits, answer.support = hits_and_support(matrix)
            total.add_confusion(matrix)
            del answer.content[names.CONFUSION]
        if reduce:
            if answer.usable:
                _add(total, answer, reduce, None if sent is None else sent[client])
            kept = (names.ARRAYS, names.BUFFERS, names.METRICS)
            answer.content = RecordDict({k: v for k, v in answer.content.items() if k not in kept})
        answers.append(answer)
    return LaneOutcome(answers, total)


def _add(total: LaneSum, answer: ClientReply, reduce: Reduction, sent: Message | None) -> None:
    """Add a usable reply, in place; one without what a `Summing` reads turns out not to be usable."""
    if isinstance(reduce, bool):
        total.add_reply(answer.metrics[WEIGHT], answer.content)
        return
    assert sent is not None, "a Summing needs the messages that were answered"
    try:
        total.add_as_asked(reduce, answer, cast(ArrayRecord, sent.content[names.ARRAYS]))
    except FedimbError as error:
        answer.usable, answer.error = False, str(error)


def run_lane(
    instructions: Sequence[Instruction], call: Callable[[int, Message], Message], reduce: Reduction
) -> LaneOutcome:
    """Run a lane's clients one after another, keeping one reply in memory at a time when reducing."""
    return gather(((client, call(client, message)) for client, message in instructions), reduce, dict(instructions))


@dataclass(frozen=True)
class Ahead:
    """Work that is quicker for many clients at once, done before their messages are answered one by one.

    Attributes:
        clients: how many at a time, about; their answers wait in memory.
        work: does it; the answers must come out the same without it, within rounding.
    """

    clients: int
    work: Callable[[Sequence[Instruction]], None]


def ahead_of(context: Context) -> Ahead | None:
    """What a simulated run's clients can have done for many of them at once; None where each trains by itself.

    Args:
        context: of any client of the run.
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
) -> list[LaneOutcome]:
    """Run lanes in order, their clients in order; what can be done for many clients ahead is."""
    outcomes: list[LaneOutcome] = []
    while len(outcomes) < len(lanes):
        group = list(lanes[len(outcomes) :])
        if ahead is not None:
            sizes = itertools.accumulate(len(lane) for lane in group)
            group = group[: max(1, sum(size <= ahead.clients for size in sizes))]
            ahead.work([order for lane in group for order in lane])
        outcomes += [run_lane(lane, call, reduce) for lane in group]
    return outcomes


def merge(outcomes: Sequence[LaneOutcome]) -> LaneOutcome:
    """Lanes' outcomes, added in lane order."""
    total = LaneSum()
    for outcome in outcomes:
        total.add(outcome.total)
    return LaneOutcome([answer for outcome in outcomes for answer in outcome.replies], total)
