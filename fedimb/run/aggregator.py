"""The adapter between the loop and a Flower strategy: any stock strategy, none of their surprises.

Flower's strategies sample their own cohort, wait for ever for nodes, average everything they are shown and turn
integers and float32 into float64. Here the loop chooses the cohort, the strategy sees trainable weights and one
MetricRecord and nothing else, buffers are averaged apart, and results come back in the model's dtypes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.contracts import platform as names
from fedimb.engine.grid import SimulationGrid
from fedimb.engine.lanes import WEIGHT, Answer, LaneOutcome, LaneSum, Order
from fedimb.errors import RunFailed
from fedimb.records import Arrays, array_record, to_numpy


class _Cohort(SimulationGrid):
    """A Grid that shows a strategy the cohort and nothing else."""

    def __init__(self, node_ids: Sequence[int]) -> None:
        super().__init__(len(node_ids))
        self._nodes = list(node_ids)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes)

    def run_lanes(self, lanes: Sequence[Sequence[Order]], reduce: bool, costs: Sequence[float]) -> list[LaneOutcome]:
        raise RunFailed("a strategy tried to exchange messages while configuring a round; use Query steps instead")


class Aggregator:
    """One strategy and the model it aggregates.

    Args:
        strategy: outermost method or bare aggregator.
        linear: whether the result depends on the replies only through their weighted mean.
        parameters: initial trainable weights by name; their dtypes are kept for ever.
        buffers: the model's buffers by name.
        train_config: scalars every train message's ConfigRecord starts with.
    """

    def __init__(
        self,
        strategy: Strategy,
        linear: bool,
        parameters: Arrays,
        buffers: Arrays,
        train_config: dict[str, Any] | None = None,
    ) -> None:
        self.strategy, self.linear, self._train_config = strategy, linear, dict(train_config or {})
        self.parameters, self.buffers = dict(parameters), dict(buffers)
        self._dtypes = {k: v.dtype for k, v in parameters.items()}

    def configure(self, server_round: int, nodes: dict[int, int]) -> list[Order]:
        """Train messages for a cohort, sorted by client id.

        Args:
            nodes: Flower node id -> client id of the clients chosen.
        """
        messages = self.strategy.configure_train(
            server_round, array_record(self.parameters), ConfigRecord(self._train_config), _Cohort(list(nodes))
        )
        orders = [(nodes[m.metadata.dst_node_id], m) for m in messages]
        return sorted(orders, key=lambda order: order[0])

    def aggregate(self, server_round: int, outcome: LaneOutcome, orders: Sequence[Order]) -> dict[str, float]:
        """Update parameters and buffers from a round's outcome; returns the aggregated train metrics.

        With no usable reply everything stays as it was.
        """
        usable = [a for a in outcome.answers if a.usable]
        if not usable:
            return {}
        by_client = dict(orders)
        if self.linear:
            replies = [self._merged(outcome.total, usable, by_client[usable[0].client])]
            total = outcome.total
        else:
            replies = [
                Message(
                    RecordDict(
                        {names.ARRAYS: a.content[names.ARRAYS], names.METRICS: a.content[names.METRICS]}
                    ),
                    reply_to=by_client[a.client],
                )
                for a in usable
            ]
            total = LaneSum()
            for a in usable:
                buffers = {k: v for k, v in a.content.items() if k == names.BUFFERS}
                total.add_reply(a.metrics[WEIGHT], RecordDict(buffers))
        arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        if arrays is not None:
            new = to_numpy(arrays)
            if set(new) != set(self._dtypes):
                raise RunFailed(f"aggregator {type(self.strategy).__name__} returned other arrays than the model's")
            self.parameters = {k: new[k].astype(self._dtypes[k], copy=False) for k in self._dtypes}
            self.buffers = {k: _mean_buffer(total, k, old) for k, old in self.buffers.items()}
        return {k: float(v) for k, v in (metrics or {}).items() if not isinstance(v, list)}

    def _merged(self, total: LaneSum, usable: Sequence[Answer], order: Message) -> Message:
        mean = {k: (v / total.weight).astype(self._dtypes[k]) for k, v in total.arrays.items()}
        keys = [k for k in usable[0].metrics if k != WEIGHT]
        metrics = {k: sum(a.metrics[k] * a.metrics[WEIGHT] for a in usable) / total.weight for k in keys}
        metrics[WEIGHT] = total.weight
        content = RecordDict({names.ARRAYS: array_record(mean), names.METRICS: MetricRecord(metrics)})  # type: ignore[arg-type]
        return Message(content, reply_to=order)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """The strategies' own arrays and numbers (moments, momenta, round counters, methods' memory)."""
        arrays: Arrays = {}
        info: dict[str, Any] = {}
        for depth, strategy in enumerate(_chain(self.strategy)):
            for name, value in vars(strategy).items():
                if name != "inner":
                    _flatten(f"{depth}.{name}", value, arrays, info)
        return arrays, info

    def load_state(self, arrays: Arrays, info: dict[str, Any]) -> None:
        """Inverse of `state`, onto freshly built strategies."""
        for depth, strategy in enumerate(_chain(self.strategy)):
            for key, kind in info.items():
                prefix, _, name = key.partition(".")
                if prefix == str(depth):
                    setattr(strategy, name, _restore(key, kind, arrays))


def _chain(strategy: Strategy) -> list[Strategy]:
    """The strategy and everything it wraps, outermost first."""
    inner = getattr(strategy, "inner", None)
    return [strategy, *(_chain(inner) if isinstance(inner, Strategy) else [])]


def _mean_buffer(total: LaneSum, key: str, old: np.ndarray) -> np.ndarray:
    """Weighted mean in float64; an integer buffer is rounded back to its own type."""
    if key not in total.buffers or total.weight <= 0:
        return old
    mean = total.buffers[key] / total.weight
    return (np.rint(mean) if np.issubdtype(old.dtype, np.integer) else mean).astype(old.dtype)


def _flatten(key: str, value: Any, arrays: Arrays, info: dict[str, Any]) -> None:
    """Record one attribute: what kind it is in ``info``, its arrays in ``arrays``. Functions and the like are rebuilt."""
    if value is None or isinstance(value, bool | int | float | str):
        info[key] = {"kind": "scalar", "value": value}
    elif isinstance(value, np.generic):
        info[key] = {"kind": "scalar", "value": value.item()}
    elif isinstance(value, np.ndarray):
        info[key] = {"kind": "array"}
        arrays[key] = value
    elif isinstance(value, ArrayRecord):
        info[key] = {"kind": "record", "keys": list(value)}
        arrays.update({f"{key}/{k}": a.numpy() for k, a in value.items()})
    elif isinstance(value, list) and value and all(isinstance(v, np.ndarray) for v in value):
        info[key] = {"kind": "list", "keys": [str(i) for i in range(len(value))]}
        arrays.update({f"{key}/{i}": v for i, v in enumerate(value)})
    elif isinstance(value, dict) and all(isinstance(v, np.ndarray | np.generic | float | int) for v in value.values()):
        info[key] = {"kind": "dict", "keys": {k: isinstance(v, np.ndarray) for k, v in value.items()}}
        arrays.update({f"{key}/{k}": np.asarray(v) for k, v in value.items()})


def _restore(key: str, kind: dict[str, Any], arrays: Arrays) -> Any:
    match kind["kind"]:
        case "scalar":
            return kind["value"]
        case "array":
            return arrays[key]
        case "record":
            return array_record({k: arrays[f"{key}/{k}"] for k in kind["keys"]})
        case "list":
            return [arrays[f"{key}/{k}"] for k in kind["keys"]]
        case _:
            return {k: arrays[f"{key}/{k}"] if is_array else arrays[f"{key}/{k}"].item() for k, is_array in kind["keys"].items()}
