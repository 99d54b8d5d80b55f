"""A method in a plain Flower ServerApp: the same loop over any Grid, storing nothing.

Call ``strategy.start(grid, initial_arrays, num_rounds)`` as for every Flower strategy. The clients can be any
ClientApp: they need to answer ``train`` (and ``evaluate``, unless the strategy's ``fraction_evaluate`` is 0) and the
method's queries.
"""

import copy
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedimb.contracts import platform as names
from fedimb.engine.grid import CLIENT_FAILED
from fedimb.engine.lanes import WEIGHT
from fedimb.errors import ConfigError
from fedimb.records import array_record, to_numpy
from fedimb.schema import ClientsConfig
from fedimb.serverapp.aggregator import Aggregator, chain
from fedimb.serverapp.client_sampler import ClientSampler
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.exchange import Exchange
from fedimb.serverapp.loop import Loop

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]


class _PlainGrid:
    """Wraps the user's grid for the loop: fixed nodes, a timeout on every exchange, replies under fedimb's keys."""

    def __init__(self, grid: Grid, node_ids: list[int], timeout: float) -> None:
        self._grid, self._node_ids, self._timeout = grid, node_ids, timeout

    def get_node_ids(self) -> Iterable[int]:
        """The nodes connected at the start, since a method's clients must not change during a run."""
        return list(self._node_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Replies sorted by node, those to ``train`` with their records renamed; a malformed one becomes an error."""
        sent = {message.metadata.dst_node_id: message for message in messages}
        replies = []
        for reply in self._grid.send_and_receive(list(sent.values()), timeout=self._timeout):
            request = sent[reply.metadata.src_node_id]
            if not reply.has_error() and request.metadata.message_type.partition(".")[0] == "train":
                reply = _renamed(reply, request)
            replies.append(reply)
        return sorted(replies, key=lambda r: r.metadata.src_node_id)


def _renamed(reply: Message, request: Message) -> Message:
    """Rename the ArrayRecord and the MetricRecord, whose keys are free in Flower; records ``x.*`` are a method's."""
    own = {k: v for k, v in reply.content.items() if k.startswith("x.")}
    arrays = [v for k, v in reply.content.items() if k not in own and isinstance(v, ArrayRecord)]
    metrics = [v for k, v in reply.content.items() if k not in own and isinstance(v, MetricRecord)]
    if len(arrays) != 1 or len(metrics) != 1 or WEIGHT not in metrics[0]:
        reason = (
            f"the reply holds {len(arrays)} ArrayRecords and {len(metrics)} MetricRecords; send one of each, the "
            f"metrics with '{WEIGHT}', and begin the keys of other records with 'x.'"
        )
        return Message(Error(code=CLIENT_FAILED, reason=reason), reply_to=request)
    reply.content = RecordDict({names.ARRAYS: arrays[0], names.METRICS: metrics[0], **own})
    return reply


class _RecordingStrategy:
    """Wraps the method and records the metrics of its ``aggregate_train``."""

    def __init__(self, method: Strategy) -> None:
        self.inner, self.metrics = method, cast(MetricRecord | None, None)

    def configure_train(self, *args: Any) -> Iterable[Message]:
        """Call the method, and clear the metrics of the previous round."""
        self.metrics = None
        return self.inner.configure_train(*args)

    def aggregate_train(self, *args: Any) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Call the method, and record its metrics."""
        arrays, self.metrics = self.inner.aggregate_train(*args)
        return arrays, self.metrics


class _MemoryCheckpointer:
    """Keeps results in memory and runs Flower's evaluation after each round."""

    def __init__(
        self, strategy: _RecordingStrategy, grid: _PlainGrid, config: ConfigRecord, evaluate_fn: Evaluate | None
    ) -> None:
        self._strategy, self._grid, self._config, self._evaluate_fn = strategy, grid, config, evaluate_fn
        self.result = Result()

    def event(self, **event: object) -> None:
        """Nothing is journaled."""

    def before_step(self, loop: Loop, step: object) -> None:
        """Nothing is stored, so nothing could be missing from it."""

    def save_result(self, index: int, result: RecordDict) -> None:
        """Nothing is replayed, so nothing is kept."""

    def load_result(self, index: int) -> RecordDict:
        """Never called: nothing is resumed."""
        raise LookupError(index)

    def checkpoint(self, loop: Loop) -> None:
        """Nothing is stored."""

    def after_round(self, loop: Loop, metrics: dict[str, float], last: bool) -> None:
        """Train metrics, client evaluation through the strategy's own hooks, then the server's ``evaluate_fn``.

        The loop's metrics (seconds, steps) are left out: the Result is Flower's, plus the method's metrics.
        """
        number = loop.progress.server_round
        arrays = array_record(loop.model().parameters)
        train = {**(self._strategy.metrics or {}), **loop.rounds.method_metrics}
        if train:
            self.result.train_metrics_clientapp[number] = MetricRecord(train)
        method, grid = self._strategy.inner, cast(Grid, self._grid)
        if messages := list(method.configure_evaluate(number, arrays, self._config, grid)):
            scores = method.aggregate_evaluate(number, self._grid.send_and_receive(messages))
            if scores is not None:
                self.result.evaluate_metrics_clientapp[number] = scores
        if self._evaluate_fn is not None and (scores := self._evaluate_fn(number, arrays)) is not None:
            self.result.evaluate_metrics_serverapp[number] = scores


def start(
    method: Strategy,
    grid: Grid,
    initial_arrays: ArrayRecord,
    num_rounds: int,
    timeout: float,
    train_config: ConfigRecord | None,
    evaluate_config: ConfigRecord | None,
    evaluate_fn: Evaluate | None,
) -> Result:
    """Run ``method`` for ``num_rounds`` rounds over ``grid`` (see `Method.start`).

    Args:
        timeout: seconds to wait for enough nodes (Flower registers them while the ServerApp starts), and then for the
            replies to each step.

    Raises:
        ConfigError: the aggregator weights replies by a metric other than ``num-examples``.
        TimeoutError: too few nodes within ``timeout``.
        RunFailed: fewer than half of the clients gave a usable reply.
        RunWaiting: the method's program is waiting for a person.
    """
    aggregator = chain(method)[-1]
    if (key := getattr(aggregator, "weighted_by_key", WEIGHT)) != WEIGHT:
        raise ConfigError(
            f"{type(aggregator).__name__}(weighted_by_key='{key}'): fedimb reads a reply's weight from '{WEIGHT}'; "
            "let the clients send it under that name and do not set weighted_by_key"
        )
    node_ids = _nodes(grid, aggregator, timeout)
    everyone = ClientsConfig(
        count=len(node_ids),
        participation=1.0,
        availability=1.0,
        dropout=0.0,
        slow=0.0,
        slow_delay_s=0.0,
        deadline_s=None,
        min_reply_fraction=0.5,
    )
    client_sampler = ClientSampler(everyone, 0, np.ones(len(node_ids), np.int64), dict(enumerate(node_ids)))
    context = RunContext(rounds=num_rounds, n_clients=len(node_ids), n_classes=0, class_names=(), seed=0)
    plain, recording, fresh = _PlainGrid(grid, node_ids, timeout), _RecordingStrategy(method), copy.deepcopy(aggregator)

    def model(draw: int) -> Aggregator:
        if draw:  # after a Reset: the methods keep their state, around a new aggregator
            cast(Any, chain(method)[-2]).inner = copy.deepcopy(fresh)
        # Not linear: the records of other clients are unknown, so the strategy gets every reply, as in Flower's loop.
        return Aggregator(cast(Strategy, recording), False, to_numpy(initial_arrays), {}, dict(train_config or {}))

    context.models["global"] = model
    checkpointer = _MemoryCheckpointer(recording, plain, evaluate_config or ConfigRecord(), evaluate_fn)
    if evaluate_fn is not None and (scores := evaluate_fn(0, initial_arrays)) is not None:
        checkpointer.result.evaluate_metrics_serverapp[0] = scores
    program = cast(Any, method).program  # a Method of fedimb.strategies, which the platform does not import
    loop = Loop(
        method, Exchange(cast(Grid, plain), client_sampler, everyone.min_reply_fraction), context, program, checkpointer
    )
    loop.run()
    checkpointer.result.arrays = array_record(loop.model().parameters)
    return checkpointer.result


def _nodes(grid: Grid, aggregator: Strategy, timeout: float) -> list[int]:
    """Ids of the connected nodes, once there are as many as the aggregator wants; it would wait forever for more."""
    wanted = max([1, *(getattr(aggregator, f"min_{what}_nodes", 1) for what in ("available", "train", "evaluate"))])
    deadline = time.monotonic() + timeout
    while len(node_ids := sorted(grid.get_node_ids())) < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{len(node_ids)} of {wanted} nodes connected within {timeout:g} s: start more nodes, or lower the "
                "strategy's min_available_nodes, min_train_nodes and min_evaluate_nodes"
            )
        time.sleep(0.1)
    return node_ids
