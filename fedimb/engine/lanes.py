"""Lanes: the unit of dispatch; and the sum of a round's clients, made where they are trained.

A cohort, sorted by client id, is cut into at most 32 contiguous lanes. Sums are exact (`fedimb.sums`): neither lanes,
nor timing, nor the number of workers changes a bit, so a worker sends one sum for all lanes of a call.
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
from fedimb.contracts.region import PARTIAL, PARTIAL_BUFFERS, REGION, members_in
from fedimb.engine.admission import Admission
from fedimb.engine.record_checks import Refusal
from fedimb.errors import FedimbError, RunFailed
from fedimb.evaluation.confusion import hits_and_support
from fedimb.records import Arrays, payload_bytes
from fedimb.sums import ExactSum, OutOfRange, Scale, ValueOutOfRange, WeightLimits

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


@dataclass(frozen=True)
class Place:
    """Where a client's reply is added, where replies of one exchange go into several sums.

    Attributes:
        sum: name of the sum.
        weight: factor on the client's weight, in its reply's metrics too.
        discount: a further factor, on what is added only.
    """

    sum: str
    weight: float = 1.0
    discount: float = 1.0


@dataclass(frozen=True)
class Reduce:
    """How a round's replies are summed, with the same scales everywhere.

    Attributes:
        weights: scale of the model's weights, weighed by ``num-examples``.
        buffers: scale of its buffers, weighed likewise.
        summing: the means that an aggregator asks for instead of the one by ``num-examples``; None: that one.
        means: limits on the weights of those means, by name; a name that is missing has the limits of unknown weights.
        places: client id -> the sum that its weights (``LaneSum.means``) and its buffers go to; empty: one for all.
    """

    weights: Scale = field(default_factory=Scale)
    buffers: Scale = field(default_factory=Scale)
    summing: Summing | None = None
    means: Mapping[str, WeightLimits] = field(default_factory=dict)
    places: Mapping[int, Place] = field(default_factory=dict)

    def scale_of(self, mean: str) -> Scale:
        """The scale of one of the means that `summing` asks for."""
        unknown = self.weights.limits.with_largest(math.inf)
        return Scale(self.means.get(mean, unknown), self.weights.bits, self.weights.other)


Reduction = bool | Reduce
"""What is done with replies: keep them (False), or sum them; True is `Reduce` by its defaults, for unknown weights and
values of at most 64 (tests)."""


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
        diverged: not usable because it holds a value that is not finite, or too large to be summed.
        refused: what in it is not as its contract or the plan says; None: nothing.
        hits, support: correctly classified rows and all rows of each class [C] int64, from its confusion matrix, or
            None; the matrix itself is summed.
        units: of a region's reply, its weight in whole units of the sum's scale; None: a single client's.
        members: of a region's reply, how many sites it is over; None: a single client's.
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
    units: int | None = None
    members: int | None = None


class LaneSum:
    """What the clients of one or many lanes add up to: exact sums of weights and buffers, and of confusion matrices.

    Args:
        reduce: how they are summed.

    Attributes:
        model: weighted sum of the trainable arrays.
        buffers: weighted sum of the model's buffers.
        means: a sum of trainable arrays for each mean that a `Summing` asks for, or each `Place`; ``model`` then holds
            weights only.
        buffers_of: a sum of buffers for each `Place`; ``buffers`` is then empty.
        confusion: sum of the confusion matrices, or None.
    """

    def __init__(self, reduce: Reduction = True) -> None:
        self.how = reduce if isinstance(reduce, Reduce) else Reduce()
        self.model, self.buffers = ExactSum(self.how.weights), ExactSum(self.how.buffers)
        self.means: dict[str, ExactSum] = {}
        self.buffers_of: dict[str, ExactSum] = {}
        self.confusion: np.ndarray | None = None

    @property
    def weight(self) -> float:
        """Sum of the clients' weights."""
        return self.model.weight

    def add(self, other: "LaneSum") -> None:
        """Add another sum to this one, in place. Raises OutOfRange when it was made by other scales."""
        self.model.add(other.model)
        self.buffers.add(other.buffers)
        self.add_confusion(other.confusion)
        for mine, others in ((self.means, other.means), (self.buffers_of, other.buffers_of)):
            for name, theirs in others.items():
                mine.setdefault(name, ExactSum(theirs.scale)).add(theirs)

    def add_reply(self, reply: ClientReply, sent: Message | None) -> None:
        """Add one usable client's weighted arrays and buffers, in place.

        Args:
            sent: the message it replied to, which a `Summing` reads.

        Raises:
            FedimbError: it lacks what a `Summing` reads, or a value or a weight is out of range; nothing was added.
            RunFailed: see `Summing.checked_weights`.

        Example:
            >>> from fedimb.records import array_record
            >>> total = LaneSum()
            >>> for client, (rows, weight) in enumerate(((30, 1.0), (10, 5.0))):
            ...     content = RecordDict({"arrays": array_record({"w": np.array([weight], np.float32)})})
            ...     total.add_reply(ClientReply(client, content=content, metrics={"num-examples": rows}), None)
            >>> total.model.mean()["w"]
            array([2.])
        """
        weight = reply.metrics[WEIGHT]
        arrays, buffers = (_values(reply.content, key) for key in (names.ARRAYS, names.BUFFERS))
        self.how.weights.check(arrays)
        if self.how.places:
            self._add_placed(reply, arrays, buffers)
            return
        parts: list[tuple[ExactSum, float, Arrays]] = []
        scalars: dict[str, float] = {}
        means: dict[str, ExactSum] = {}
        if self.how.summing is None:
            parts.append((self.model, weight, arrays))
        else:
            assert sent is not None, "a Summing needs the messages that were sent"
            received, trained = (cast(ArrayRecord, m[names.ARRAYS]) for m in (sent.content, reply.content))
            scalars = self.how.summing.read(reply.metrics, received, trained)
            parts.append((self.model, weight, {}))
            given = self.how.summing.checked_weights({CLIENT: reply.client, **scalars})
            means = {name: self.means.get(name) or ExactSum(self.how.scale_of(name)) for name in given}
            parts += [(means[name], own, arrays) for name, own in given.items()]
        for total, own, values in parts:
            total.check(own, values, checked=True)
        if buffers:
            self.buffers.check(weight, buffers)
            parts.append((self.buffers, weight, buffers))
        self.means |= means
        for total, own, values in parts:
            total.add_weighted(own, values, checked=True)
        reply.metrics |= scalars

    def add_partial(self, reply: ClientReply, sent: Message) -> None:
        """Add what a region's usable sites add up to (`fedimb.engine.region`), in place.

        Args:
            sent: the message it replied to: the sums are of arrays like those that it carries.

        Raises:
            OutOfRange: names, shapes or sizes are not those of such a sum, or its weight is not the one that the
                region's metrics say; nothing was added.
        """
        about = reply.content.config_records[REGION]
        units, members = int(cast(int, about["units"])), int(cast(int, about["members"]))
        found = []
        for key, received, mine in (
            (PARTIAL, names.ARRAYS, self.model),
            (PARTIAL_BUFFERS, names.BUFFERS, self.buffers),
        ):
            arrays, like = _values(reply.content, key), _values(sent.content, received)
            if {name: value.shape for name, value in arrays.items()} != {n: value.shape for n, value in like.items()}:
                raise OutOfRange(f"'{key}' holds other arrays than the region was sent, or of other shapes")
            found.append((mine, ExactSum(mine.scale)))
            if arrays:
                found[-1][1].take_totals(units, {name: arrays[name] for name in like}, members)
        if found[0][1].weight != reply.metrics[WEIGHT]:
            raise OutOfRange(f"its sum has the weight {found[0][1].weight:g}, and its metrics say another")
        self.model._within(units)
        for mine, partial in found:
            mine.add(partial)
        reply.units = units

    def _add_placed(self, reply: ClientReply, arrays: Arrays, buffers: Arrays) -> None:
        """Add a client's arrays and buffers to the sums of its `Place`, and its weight to ``model``."""
        place = self.how.places[reply.client]
        weight = reply.metrics[WEIGHT] * place.weight
        added = weight * place.discount
        means, buffers_of = dict(self.means), dict(self.buffers_of)
        mean = means.setdefault(place.sum, ExactSum(self.how.weights))
        parts: list[tuple[ExactSum, float, Arrays]] = [(self.model, weight, {}), (mean, added, arrays)]
        if buffers:
            parts.append((buffers_of.setdefault(place.sum, ExactSum(self.how.buffers)), added, buffers))
        for total, own, values in parts:
            total.check(own, values, checked=values is arrays)
        self.means, self.buffers_of = means, buffers_of
        for total, own, values in parts:
            total.add_weighted(own, values, checked=True)
        reply.metrics[WEIGHT] = weight

    def add_confusion(self, matrix: np.ndarray | None) -> None:
        """Add a confusion matrix [C, C] int64, or [C, 2, 2] for several labels per row, in place."""
        if matrix is not None:
            self.confusion = matrix.copy() if self.confusion is None else self.confusion + matrix


def _values(content: RecordDict, key: str) -> Arrays:
    """An array record's values without copies; empty if it is missing."""
    return {name: view(array) for name, array in content.array_records[key].items()} if key in content else {}


@dataclass
class LaneOutcome:
    """What a lane returns: its clients' replies in id order, and their sum if it reduces.

    The sum of several lanes may stand with the first of them, and nothing with the others.
    """

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
    client: int,
    message: Message,
    sent: Message | None = None,
    admission: Admission | None = None,
    summed: bool = False,
) -> ClientReply:
    """Turn a reply message into a ClientReply and decide whether it is usable.

    Args:
        sent: the message that the client replied to.
        admission: checks the reply before anything else reads it; None: only what lanes need is checked.
        summed: weights and buffers are left to the sum, which checks that they are finite and within their bounds.
    """
    if message.has_error():
        return ClientReply(client, error=message.error.reason or f"error {message.error.code}", usable=False)
    refused = None if admission is None else admission.refusal(client, message, sent)
    if refused is not None:
        return ClientReply(client, error=str(refused), usable=False, diverged=refused.not_finite, refused=refused)
    content = message.content
    reply = ClientReply(client, content=content, up_bytes=payload_bytes(content))
    reply.members = members_in(content) if REGION in content else None
    trained = (sent or message).metadata.message_type.partition(".")[0] == "train"
    weights = PARTIAL if PARTIAL in content else names.ARRAYS
    if trained and (missing := [key for key in (weights, names.METRICS) if key not in content]):
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
    elif not all(
        _finite(record)
        for key, record in content.items()
        if isinstance(record, ArrayRecord) and not (summed and key in _SUMMED)
    ):
        reply.usable, reply.diverged = False, True
        reply.error = "the reply holds a value that is not finite (diverged?); lower local.lr"
    return reply


_SUMMED = (names.ARRAYS, names.BUFFERS)


def _finite(record: ArrayRecord) -> bool:
    arrays = (view(array) for array in record.values())
    # One sum is faster than a flag per value. It may overflow although no value does, so only a finite sum is trusted.
    return all(math.isfinite(a.sum()) or bool(np.isfinite(a).all()) for a in arrays if a.dtype.kind == "f")


def gather(
    messages: Iterable[tuple[int, Message]],
    reduce: Reduction,
    sent: Mapping[int, Message] | None = None,
    admission: Admission | None = None,
    total: LaneSum | None = None,
) -> LaneOutcome:
    """Collect replies, in client-id order, and (``reduce``) their sums, one reply at a time.

    Confusion matrices are always summed here and taken out, before any aggregator sees a reply.

    Args:
        sent: the message each client replied to; a `Summing` reads from it what the client received.
        admission: checks each reply before anything uses it.
        total: the sum to add to; None: a new one.
    """
    total = LaneSum(reduce) if total is None else total
    replies = []
    for client, message in messages:
        reply = read_reply(client, message, None if sent is None else sent[client], admission, bool(reduce))
        if names.CONFUSION in reply.content:
            matrix = cast(ArrayRecord, reply.content[names.CONFUSION])["matrix"].numpy()
            reply.hits, reply.support = hits_and_support(matrix)
            total.add_confusion(matrix)
            del reply.content[names.CONFUSION]
        if reduce:
            _reduce(total, reply, None if sent is None else sent[client])
        replies.append(reply)
    return LaneOutcome(replies, total)


def _reduce(total: LaneSum, reply: ClientReply, sent: Message | None) -> None:
    """Add a reply to a sum and remove what was summed from it, in place; one that cannot be added is not usable."""
    if reply.usable:
        try:
            if PARTIAL in reply.content and sent is not None:
                total.add_partial(reply, sent)
            else:
                total.add_reply(reply, sent)
        except RunFailed:
            raise
        except FedimbError as error:
            reply.usable, reply.error = False, str(error)
            reply.diverged = isinstance(error, ValueOutOfRange)
    kept = (names.ARRAYS, names.BUFFERS, names.METRICS, PARTIAL, PARTIAL_BUFFERS, REGION)
    reply.content = RecordDict({k: v for k, v in reply.content.items() if k not in kept})


def sum_replies(outcome: LaneOutcome, reduce: Reduction, sent: Mapping[int, Message]) -> LaneOutcome:
    """Sum replies that were kept: the same outcome to the bit as if they had been summed where they were trained.

    Args:
        outcome: of an exchange that kept every reply (``reduce=False``).
        sent: the message each client replied to.
    """
    if not reduce:
        return outcome
    total = LaneSum(reduce)
    for reply in outcome.replies:
        _reduce(total, reply, sent[reply.client])
    total.confusion = outcome.total.confusion
    return LaneOutcome(outcome.replies, total)


def run_lane(
    instructions: Sequence[Instruction],
    call: Callable[[int, Message], Message],
    reduce: Reduction,
    admission: Admission | None = None,
    total: LaneSum | None = None,
) -> LaneOutcome:
    """Run a lane's clients one after another, keeping one reply in memory at a time when reducing."""
    replies = ((client, call(client, message)) for client, message in instructions)
    return gather(replies, reduce, dict(instructions), admission, total)


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
    """Run lanes in order and their clients in order; first does the ``ahead`` work for many clients at once.

    All lanes are added to one sum, which stands with the first.
    """
    outcomes: list[LaneOutcome] = []
    total = LaneSum(reduce)
    while len(outcomes) < len(lanes):
        group = list(lanes[len(outcomes) :])
        if ahead is not None:
            sizes = itertools.accumulate(len(lane) for lane in group)
            group = group[: max(1, sum(size <= ahead.clients for size in sizes))]
            ahead.work([instruction for lane in group for instruction in lane])
        outcomes += [run_lane(lane, call, reduce, admission, total) for lane in group]
    return [LaneOutcome(own.replies, total if i == 0 else LaneSum(reduce)) for i, own in enumerate(outcomes)]


def merge_lanes(outcomes: Sequence[LaneOutcome]) -> LaneOutcome:
    """Merge lane outcomes: replies in lane order, and the sum of their sums."""
    total = LaneSum(outcomes[0].total.how) if outcomes else LaneSum()
    for outcome in outcomes:
        total.add(outcome.total)
    return LaneOutcome([reply for outcome in outcomes for reply in outcome.replies], total)
