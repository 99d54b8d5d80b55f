"""The adapter between the loop and any Flower strategy.

Flower's strategies sample their own cohort, wait forever for nodes, average everything they get and turn integers and
float32 into float64. Here the loop chooses the cohort, the strategy gets only the trainable weights and one
MetricRecord, buffers are averaged separately, and results are converted back to the model's dtypes. An aggregator that
is not linear may name additional records of the replies in its attribute ``reads``.
"""

import contextlib
import gc
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.aggregators.server_optimizer import REAL, ServerOptimizer, merge_replies
from fedimb.by_reference import view
from fedimb.contracts import platform as names
from fedimb.contracts.optimizer import CLIENT
from fedimb.engine.grid import SimulationGrid
from fedimb.engine.lanes import WEIGHT, ClientReply, Instruction, Lane, LaneOutcome, LaneSum, Place, Reduce, Reduction
from fedimb.errors import RunDiverged, RunFailed
from fedimb.plain import StateDict
from fedimb.records import Arrays, array_record, to_numpy
from fedimb.serverapp.state_dict import load_state, owner_name, state_of
from fedimb.sums import VALUE_RATIO, Scale, WeightLimits, sum_of


class _CohortGrid(SimulationGrid):
    """A Grid that shows a strategy only the cohort."""

    def __init__(self, node_ids: Sequence[int]) -> None:
        super().__init__(len(node_ids))
        self._nodes = list(node_ids)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes)

    def run_lanes(self, lanes: Sequence[Lane], reduce: Reduction, costs: Sequence[float]) -> list[LaneOutcome]:
        raise RunFailed("a strategy sent messages while configuring a round; use Query steps instead")


class Aggregator:
    """A strategy and the model it aggregates.

    Args:
        strategy: the outermost method, or an aggregator without methods.
        linear: whether the result depends on the replies only through their weighted mean.
        parameters: initial trainable weights by name; their dtypes never change.
        buffers: the model's buffers by name.
        train_config: scalars in the ConfigRecord of every train message.
        server_lr: the innermost strategy's attribute that is its learning rate, and the factor on it by round.
        value_ratio: how many times as large as the largest value sent, or as 1, a value in a reply may be
            (``clients.max_value_ratio``), in each array of weights and each buffer.
    """

    def __init__(
        self,
        strategy: Strategy,
        linear: bool,
        parameters: Arrays,
        buffers: Arrays,
        train_config: dict[str, Any] | None = None,
        server_lr: tuple[str, Callable[[int], float]] | None = None,
        value_ratio: float = VALUE_RATIO,
    ) -> None:
        self._server_lr, self._value_ratio = server_lr, value_ratio
        self.strategy, self.linear, self._train_config = strategy, linear, dict(train_config or {})
        self.parameters, self.buffers = dict(parameters), dict(buffers)
        self._dtypes = {k: v.dtype for k, v in parameters.items()}

    def reduction(
        self,
        limits: WeightLimits,
        places: Mapping[int, Place] | None = None,
        sent: tuple[Arrays, Arrays] | None = None,
    ) -> Reduction:
        """What lanes do with the replies to this round's messages.

        Args:
            limits: on the weights of the cohort's clients.
            places: client id -> the sum that its reply is added to; None: one for all.
            sent: weights and buffers that the messages carry; None: the present ones.
        """
        if not self.linear:
            return False
        parameters, own = sent or (self.parameters, self.buffers)
        weights = Scale.of(parameters, limits, self._value_ratio)
        buffers = Scale.of(own, limits, self._value_ratio)
        if places is not None:
            return Reduce(weights, buffers, places=places)
        aggregator = chain(self.strategy)[-1]
        if not isinstance(aggregator, ServerOptimizer):
            return Reduce(weights, buffers)
        largest = aggregator.largest_weights(2.0**limits.each)
        means = {name: limits.with_largest(weight) for name, weight in largest.items()}
        return Reduce(weights, buffers, aggregator.without_state(), means)

    def records(self) -> Callable[[int], dict[str, ArrayRecord]]:
        """Function from a client id to the records with the weights and buffers that a message to it carries.

        Clients that get the same share one object.
        """
        same = {names.ARRAYS: array_record(self.parameters)}
        same |= {names.BUFFERS: array_record(self.buffers)} if self.buffers else {}
        return lambda client: same

    @property
    def common_buffers(self) -> Arrays:
        """The buffers that train messages to all clients carry."""
        return self.buffers

    @property
    def strategies(self) -> list[Strategy]:
        """Every strategy whose state must survive, methods too."""
        return chain(self.strategy)

    @property
    def state_owner(self) -> object:
        """The object whose state dict a checkpoint saves with the weights."""
        return chain(self.strategy)[-1]

    def configure(self, server_round: int, nodes: dict[int, int]) -> list[Instruction]:
        """Train messages for a cohort, sorted by client id.

        Args:
            nodes: Flower node id -> client id, for the chosen clients.
        """
        messages = self.strategy.configure_train(
            server_round, array_record(self.parameters), ConfigRecord(self._train_config), _CohortGrid(list(nodes))
        )
        instructions = [(nodes[m.metadata.dst_node_id], m) for m in messages]
        return sorted(instructions, key=lambda instruction: instruction[0])

    def aggregate(
        self, server_round: int, outcome: LaneOutcome, instructions: Sequence[Instruction], step: float = 1.0
    ) -> dict[str, float]:
        """Update parameters and buffers from a round's outcome; returns the aggregated train metrics.

        Without a usable reply everything stays as it was.

        Args:
            step: factor on the mean update; other than 1 only of a linear aggregator that averages weights.

        Raises:
            RunFailed: a client or the strategy returned weights that do not match the model's, or are not finite.
        """
        usable = sorted((a for a in outcome.replies if a.usable), key=lambda a: a.client)
        if not usable:
            return {}
        by_client = dict(instructions)
        if self.linear:
            check_complete(server_round, outcome.total, usable)
            replies = [self._merged(outcome.total, usable, by_client[usable[0].client], step)]
            means = outcome.total.buffers.mean()
        else:
            replies = []
            sent = [a for a in usable if names.BUFFERS in a.content]
            means = sum_of([a.metrics[WEIGHT] for a in sent], [_buffers_in(a) for a in sent]).mean()
            aggregator = chain(self.strategy)[-1]
            reads = getattr(aggregator, "reads", ())  # records that the aggregator declares to read
            for a in usable:
                arrays = self._in_order(dict(a.content.array_records[names.ARRAYS]), f"client {a.client}")
                content = RecordDict({names.ARRAYS: ArrayRecord(arrays), names.METRICS: a.content[names.METRICS]})
                content.update({key: a.content[key] for key in reads if key in a.content})
                if isinstance(aggregator, ServerOptimizer):
                    content[names.CLIENT] = ConfigRecord({CLIENT: a.client})
                replies.append(Message(content, reply_to=by_client[a.client]))
        return self._take(server_round, replies, means, usable)

    def apply_update(
        self,
        server_round: int,
        update: Arrays,
        buffers: Arrays,
        arrived: Sequence[ClientReply],
        request: Message,
    ) -> dict[str, float]:
        """Update parameters and buffers by a mean update that is given; returns the aggregated train metrics.

        Args:
            update: by parameter name, float64; the strategy gets the present weights plus these as the mean reply.
            buffers: new values by name; those that are missing stay.
            arrived: the replies that it is the mean of.
            request: any train message of this round.

        Raises:
            RunFailed, RunDiverged: see `aggregate`.
        """
        self._check_shapes({name: value.shape for name, value in update.items()}, "a client")
        weights = {name: self.parameters[name] + update[name] for name in self._dtypes}
        replies = [self._one(weights, arrived, math.fsum(a.metrics[WEIGHT] for a in arrived), request)]
        return self._take(server_round, replies, buffers, arrived)

    def _take(
        self,
        server_round: int,
        replies: Sequence[Message],
        means: Mapping[str, np.ndarray],
        usable: Sequence[ClientReply],
    ) -> dict[str, float]:
        """Let the strategy aggregate replies, and take its result and these means of buffers."""
        # QFedAvg and Bulyan run the garbage collector once per reply, a tenth of a second each; frozen objects are
        # skipped. Only for strategies that get every reply: unfreezing moves objects to the oldest generation, rarely
        # collected.
        frozen = gc_frozen() if not self.linear else contextlib.nullcontext()
        with frozen, self._scheduled(server_round), results_of(self.strategy) as results:
            merged, metrics = self.strategy.aggregate_train(server_round, replies)
        if merged is not None:
            new = self._checked(merged, server_round, results)
            self.parameters = {k: v.astype(self._dtypes[k], copy=False) for k, v in new.items()}
            self.buffers = {k: _mean_buffer(means.get(k), old) for k, old in self.buffers.items()}
        told = {k: float(v) for k, v in (metrics or {}).items() if not isinstance(v, list)}
        return {k: v if math.isfinite(v) else _mean_metric(usable, k) for k, v in told.items()}

    @contextlib.contextmanager
    def _scheduled(self, server_round: int) -> Iterator[None]:
        """The learning rate of this round inside the block; afterwards the strategy is as configured."""
        if self._server_lr is None:
            yield
            return
        strategy, (name, factor) = chain(self.strategy)[-1], self._server_lr
        before = {key: getattr(strategy, key) for key in (name, "server_opt") if hasattr(strategy, key)}
        setattr(strategy, name, before[name] * factor(server_round))
        if "server_opt" in before:  # Flower's FedAvgM decides when it is built whether its learning rate is 1
            setattr(strategy, "server_opt", True)  # noqa: B010 - only one of the strategies has it
        try:
            yield
        finally:
            for key, value in before.items():
                setattr(strategy, key, value)

    def _one(self, weights: Arrays, usable: Sequence[ClientReply], weight: float, request: Message) -> Message:
        """A reply with these weights and the clients' mean metrics."""
        metrics = {k: _mean_metric(usable, k) for k in usable[0].metrics if k != WEIGHT} | {WEIGHT: weight}
        content = RecordDict({names.METRICS: MetricRecord(metrics)})  # type: ignore[arg-type]
        content[names.ARRAYS] = array_record({k: v.astype(self._dtypes[k]) for k, v in weights.items()})
        return Message(content, reply_to=request)

    def _merged(self, total: LaneSum, usable: Sequence[ClientReply], request: Message, step: float = 1.0) -> Message:
        aggregator = chain(self.strategy)[-1]
        if not isinstance(aggregator, ServerOptimizer):
            means = self._in_order(total.model.mean(), "a client")
            if step != 1.0:
                means = {k: self.parameters[k] + step * (v - self.parameters[k]) for k, v in means.items()}
            return self._one(means, usable, total.weight, request)
        keys = [k for k in usable[0].metrics if k != WEIGHT]
        metrics = {k: _mean_metric(usable, k) for k in keys}
        metrics[WEIGHT] = total.weight
        content = RecordDict({names.METRICS: MetricRecord(metrics)})  # type: ignore[arg-type]
        for mean in total.means.values():
            if mean.units:
                self._check_shapes(mean.shapes, "a client")
        columns: dict[str, list[float]] = {CLIENT: [a.client for a in usable]}
        columns |= {key: [a.metrics[key] for a in usable] for key in (WEIGHT, *aggregator.scalars)}
        content.update(merge_replies(self.parameters, total.means, columns))
        return Message(content, reply_to=request)

    def _in_order(self, arrays: dict[str, Any], sender: str) -> dict[str, Any]:
        """Arrays in the model's order: several strategies match them by position and ignore their names.

        Raises:
            RunFailed: names or shapes differ from the model's.
        """
        self._check_shapes({k: tuple(v.shape) for k, v in arrays.items()}, sender)
        return {k: arrays[k] for k in self._dtypes}

    def _check_shapes(self, shapes: Mapping[str, tuple[int, ...]], sender: str) -> None:
        expected = {k: v.shape for k, v in self.parameters.items()}
        if shapes != expected:
            wrong = sorted(k for k in shapes.keys() | expected if shapes.get(k) != expected.get(k))
            raise RunFailed(
                f"{sender} returned weights that do not match the model's ({', '.join(wrong[:3])}): use the same "
                "fedimb version and model configuration everywhere"
            )

    def _checked(self, merged: ArrayRecord, server_round: int, results: Sequence[tuple[str, ArrayRecord]]) -> Arrays:
        """A round's result as arrays in the model's order.

        Args:
            results: of all strategies (see `results_of`): an error names the innermost one at fault.

        Raises:
            RunFailed: names, shapes or the kind of number differ from the model's.
            RunDiverged: a value is not finite.
        """
        try:
            return self._weights_of(merged, f"round {server_round}: {owner_name(self.strategy)}")
        except RunFailed:
            for name, result in results:
                self._weights_of(result, f"round {server_round}: {name}")
            raise

    def _weights_of(self, result: ArrayRecord, sender: str) -> Arrays:
        new = self._in_order(to_numpy(result), sender)
        for name, value in new.items():
            if value.dtype.kind not in REAL:
                raise RunFailed(f"{sender} returned {value.dtype} for '{name}': return real numbers")
            if not np.isfinite(value).all():
                raise RunDiverged(
                    f"{sender} returned non-finite weights from finite replies; lower its learning rate or local.lr"
                )
        return new

    def replace(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace the model's parameters, keeping its dtypes; the aggregator keeps its state.

        Raises:
            RunFailed: names differ from the model's.
        """
        if other := sorted(self.parameters.keys() ^ weights.keys()):
            raise RunFailed(f"Replace: use the names of the model's parameters; '{other[0]}' is only in one of the two")
        self.parameters = {name: np.asarray(weights[name], own.dtype) for name, own in self.parameters.items()}

    def state_dict(self) -> StateDict:
        """State of the innermost strategy (moments, momenta); the checkpoint saves methods separately."""
        return state_of(chain(self.strategy)[-1])

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`, onto a freshly built strategy."""
        load_state(chain(self.strategy)[-1], state)


@contextlib.contextmanager
def gc_frozen() -> Iterator[None]:
    """Exclude all existing objects from garbage collection inside the block."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def results_of(strategy: Strategy) -> Iterator[list[tuple[str, ArrayRecord]]]:
    """What each strategy of a `chain` returns from `aggregate_train` inside the block, innermost first, with its name.

    A method that returns what its inner one did, as most do, is left out.
    """
    found: list[tuple[str, ArrayRecord]] = []

    def watched(one: Strategy) -> Callable[..., tuple[ArrayRecord | None, MetricRecord | None]]:
        aggregate = one.aggregate_train

        def aggregate_train(*args: Any, **options: Any) -> tuple[ArrayRecord | None, MetricRecord | None]:
            result = aggregate(*args, **options)
            if result[0] is not None and not any(result[0] is earlier for _, earlier in found):
                found.append((owner_name(one), result[0]))
            return result

        return aggregate_train

    before = [(one, vars(one).get("aggregate_train")) for one in chain(strategy)]
    for one, _ in before:
        one.aggregate_train = watched(one)  # type: ignore[method-assign]
    try:
        yield found
    finally:
        for one, own in before:
            if own is None:
                del one.aggregate_train
            else:
                one.aggregate_train = own  # type: ignore[method-assign]


def chain(strategy: Strategy) -> list[Strategy]:
    """The strategy and all strategies it wraps, outermost first; the last one is the aggregator."""
    inner = getattr(strategy, "inner", None)
    return [strategy, *(chain(inner) if isinstance(inner, Strategy) else [])]


def _mean_metric(usable: Sequence[ClientReply], key: str) -> float:
    """Weighted mean over the clients with a defined metric: a client that ran no step has no training loss."""
    defined = [(a.metrics[WEIGHT], a.metrics[key]) for a in usable if math.isfinite(a.metrics.get(key, math.nan))]
    return sum(w * v for w, v in defined) / sum(w for w, _ in defined) if defined else math.nan


def check_complete(server_round: int, total: LaneSum, usable: Sequence[ClientReply]) -> None:
    """Each usable reply is in the sum once: a worker that died and was replaced must leave nothing behind.

    Raises:
        RunFailed: the weights differ, which are whole numbers of units.
    """
    limits = total.how.weights.limits
    units = (limits.units(reply.metrics[WEIGHT]) if reply.units is None else reply.units for reply in usable)
    if sum(units) != total.model.units:
        raise RunFailed(
            f"round {server_round}: the sum over clients, of weight {total.weight:g}, is not that of the "
            f"{len(usable)} usable replies; resume to run the round again"
        )


def _buffers_in(reply: ClientReply) -> Arrays:
    return {name: view(array) for name, array in reply.content.array_records[names.BUFFERS].items()}


def _mean_buffer(mean: np.ndarray | None, old: np.ndarray) -> np.ndarray:
    """A mean in float64 in the buffer's own type, a whole number rounded; the old value where there is no mean."""
    if mean is None:
        return old
    # A sum of 0-d arrays (BatchNorm's count of batches) is a NumPy scalar: convert it back to an array.
    return np.asarray(np.rint(mean) if np.issubdtype(old.dtype, np.integer) else mean, old.dtype)
