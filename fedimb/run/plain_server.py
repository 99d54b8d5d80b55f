"""A method in a plain Flower ServerApp: the same loop over any Grid, storing nothing.

``strategy.start(grid, initial_arrays, num_rounds)`` as every Flower strategy. The clients may be anybody's: they
need to answer ``train`` (and ``evaluate``, unless the strategy's ``fraction_evaluate`` is 0) and the method's queries.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from fedimb.config.schema import ClientsConfig
from fedimb.records import array_record, to_numpy
from fedimb.run.aggregator import Aggregator
from fedimb.run.exchange import Exchange
from fedimb.run.loop import Loop, RunView
from fedimb.run.roster import Roster

if TYPE_CHECKING:
    from fedimb.strategies.base import Method

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]


class _Keeper:
    """Keeps results in memory and runs Flower's evaluation after each round."""

    def __init__(self, method: "Method", grid: Grid, config: ConfigRecord, evaluate_fn: Evaluate | None) -> None:
        self._method, self._grid, self._config, self._evaluate_fn = method, grid, config, evaluate_fn
        self.result = Result()

    def event(self, **event: object) -> None:
        """Nothing is journaled."""

    def save_result(self, index: int, result: RecordDict) -> None:
        """Nothing is replayed, so nothing is kept."""

    def load_result(self, index: int) -> RecordDict:
        """Never asked for: nothing is resumed."""
        raise LookupError(index)

    def checkpoint(self, loop: Loop) -> None:
        """Nothing is stored."""

    def after_round(self, loop: Loop, metrics: dict[str, float], last: bool) -> None:
        """Train metrics, client evaluation through the strategy's own hooks, then the server's ``evaluate_fn``."""
        number = loop.progress.server_round
        arrays = array_record(loop.model().parameters)
        self.result.train_metrics_clientapp[number] = MetricRecord(metrics)  # type: ignore[arg-type]
        messages: list[Message] = list(self._method.configure_evaluate(number, arrays, self._config, self._grid))
        if messages:
            replies = sorted(self._grid.send_and_receive(messages), key=lambda r: r.metadata.src_node_id)
            if (scores := self._method.aggregate_evaluate(number, replies)) is not None:
                self.result.evaluate_metrics_clientapp[number] = scores
        if self._evaluate_fn is not None and (scores := self._evaluate_fn(number, arrays)) is not None:
            self.result.evaluate_metrics_serverapp[number] = scores


def start(
    method: "Method",
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
        timeout: seconds to wait for the first node (Flower registers them while the ServerApp starts).

    Raises:
        TimeoutError: no node within ``timeout``.
        RunFailed: fewer than half of the clients gave a usable reply.
    """
    deadline = time.monotonic() + timeout
    while not (node_ids := sorted(grid.get_node_ids())):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no node connected within {timeout:g} s")
        time.sleep(0.1)
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
    roster = Roster(everyone, 0, np.ones(len(node_ids)), dict(enumerate(node_ids)))
    # Not linear: a plain client's records are unknown here, so the strategy sees every reply, as in Flower's own loop.
    view = RunView(rounds=num_rounds, n_clients=len(node_ids), n_classes=0, class_names=(), seed=0)
    view.models["global"] = lambda draw: Aggregator(method, False, to_numpy(initial_arrays), {}, dict(train_config or {}))
    keeper = _Keeper(method, grid, evaluate_config or ConfigRecord(), evaluate_fn)
    if evaluate_fn is not None and (scores := evaluate_fn(0, initial_arrays)) is not None:
        keeper.result.evaluate_metrics_serverapp[0] = scores
    loop = Loop(method, Exchange(grid, roster, everyone.min_reply_fraction), view, method.program, keeper)
    loop.run()
    keeper.result.arrays = array_record(loop.model().parameters)
    return keeper.result
