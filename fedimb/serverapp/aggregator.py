"""The adapter between the loop and a Flower strategy: any stock strategy, none of their surprises.

Flower's strategies sample their own cohort, wait for ever for nodes, average everything they are shown and turn
integers and float32 into float64. Here the loop chooses the cohort, the strategy sees trainable weights and one
MetricRecord and nothing else, buffers are averaged apart, and results come back in the model's dtypes. An aggregator
that is not linear may name further records of the replies in its attribute ``reads``.
"""

import contextlib
import gc
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.aggregators.server_optimizer import ServerOptimizer, merged
from fedimb.contracts import platform as names
from fedimb.contracts.optimizer import CLIENT
from fedimb.engine.grid import SimulationGrid
from fedimb.engine.lanes import WEIGHT, ClientReply, Instruction, Lane, LaneOutcome, LaneSum, Reduction
from fedimb.errors import RunDiverged, RunFailed
from fedimb.records import Arrays, array_record, to_numpy

STATE_DICT = "state_dict"
"""In an aggregator's saved state: the structure of its `state_dict`, where it has one."""


class _Cohort(SimulationGrid):
    """A Grid that shows a strategy the cohort and nothing else."""

    def __init__(self, node_ids: Sequence[int]) -> None:
        super().__init__(len(node_ids))
        self._nodes = list(node_ids)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes)

    def run_lanes(self, lanes: Sequence[Lane], reduce: Reduction, costs: Sequence[float]) -> list[LaneOutcome]:
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

    @property
    def reduce(self) -> Reduction:
        """What lanes do with the replies to this aggregator's messages."""
        aggregator = chain(self.strategy)[-1]
        return aggregator.without_state() if self.linear and isinstance(aggregator, ServerOptimizer) else self.linear

    def configure(self, server_round: int, nodes: dict[int, int]) -> list[Instruction]:
        """Train messages for a cohort, sorted by client id.

        Args:
            nodes: Flower node id -> client id of the clients chosen.
        """
        messages = self.strategy.configure_train(
            server_round, array_record(self.parameters), ConfigRecord(self._train_config), _Cohort(list(nodes))
        )
        instructions = [(nodes[m.metadata.dst_node_id], m) for m in messages]
        return sorted(instructions, key=lambda order: order[0])

    def aggregate(
        self, server_round: int, outcome: LaneOutcome, instructions: Sequence[Instruction]
    ) -> dict[str, float]:
        """Update parameters and buffers from a round's outcome; returns the aggregated train metrics.

        With no usable reply everything stays as it was.

        Raises:
            RunFailed: a client or the strategy returned other weights than the model's, or weights not finite.
        """
        usable = sorted((a for a in outcome.replies if a.usable), key=lambda a: a.client)
        if not usable:
            return {}
        by_client = dict(instructions)
        if self.linear:
            replies = [self._merged(outcome.total, usable, by_client[usable[0].client])]
            total = outcome.total
        else:
            replies = []
            total = LaneSum()
            aggregator = chain(self.strategy)[-1]
            reads = getattr(aggregator, "reads", ())  # records an aggregator declares to read
            for a in usable:
                arrays = self._in_order(dict(a.content.array_records[names.ARRAYS]), f"client {a.client}")
                content = RecordDict({names.ARRAYS: ArrayRecord(arrays), names.METRICS: a.content[names.METRICS]})
                content.update({key: a.content[key] for key in reads if key in a.content})
                if isinstance(aggregator, ServerOptimizer):
                    content[names.CLIENT] = ConfigRecord({CLIENT: a.client})
                replies.append(Message(content, reply_to=by_client[a.client]))
                buffers = {k: v for k, v in a.content.items() if k == names.BUFFERS}
                total.add_reply(a.metrics[WEIGHT], RecordDict(buffers))
        # QFedAvg and Bulyan collect garbage once per reply, a tenth of a second each; frozen, there is little to see.
        # Only for those that get every reply: unfreezing calls all garbage old, and what is old is seldom collected.
        with frozen() if not self.linear else contextlib.nullcontext():
            merged, metrics = self.strategy.aggregate_train(server_round, replies)
        if merged is not None:
            new = self._in_order(to_numpy(merged), f"aggregator {type(self.strategy).__name__}")
            if not all(np.isfinite(v).all() for v in new.values()):
                raise RunDiverged(
                    f"round {server_round}: aggregator {type(self.strategy).__name__} made weights that are not finite "
                    "from replies that are; lower its learning rate or local.lr"
                )
            self.parameters = {k: v.astype(self._dtypes[k], copy=False) for k, v in new.items()}
            self.buffers = {k: _mean_buffer(total, k, old) for k, old in self.buffers.items()}
        means = {k: float(v) for k, v in (metrics or {}).items() if not isinstance(v, list)}
        return {k: v if math.isfinite(v) else _mean_metric(usable, k) for k, v in means.items()}

    def _merged(self, total: LaneSum, usable: Sequence[ClientReply], order: Message) -> Message:
        keys = [k for k in usable[0].metrics if k != WEIGHT]
        metrics = {k: _mean_metric(usable, k) for k in keys}
        metrics[WEIGHT] = total.weight
        content = RecordDict({names.METRICS: MetricRecord(metrics)})  # type: ignore[arg-type]
        aggregator = chain(self.strategy)[-1]
        if isinstance(aggregator, ServerOptimizer):
            sums = {name: self._in_order(mean.arrays, "a client") for name, mean in total.means.items()}
            columns: dict[str, list[float]] = {CLIENT: [a.client for a in usable]}
            columns |= {key: [a.metrics[key] for a in usable] for key in (WEIGHT, *aggregator.scalars)}
            totals = {name: mean.weight for name, mean in total.means.items()}
            content.update(merged(self.parameters, totals, sums, columns))
        else:
            sums_of_all = self._in_order(total.arrays, "a client")
            mean = {k: (v / total.weight).astype(self._dtypes[k]) for k, v in sums_of_all.items()}
            content[names.ARRAYS] = array_record(mean)
        return Message(content, reply_to=order)

    def _in_order(self, arrays: dict[str, Any], sender: str) -> dict[str, Any]:
        """Arrays in the model's order: several strategies pair them by position, whatever their names.

        Raises:
            RunFailed: other names or shapes than the model's.
        """
        shapes = {k: tuple(v.shape) for k, v in arrays.items()}
        expected = {k: v.shape for k, v in self.parameters.items()}
        if shapes != expected:
            wrong = sorted(k for k in shapes.keys() | expected if shapes.get(k) != expected.get(k))
            raise RunFailed(
                f"{sender} returned other weights than the model's ({', '.join(wrong[:3])}): are all on one version "
                "and one model configuration?"
            )
        return {k: arrays[k] for k in self._dtypes}

    def replace(self, weights: Mapping[str, np.ndarray]) -> None:
        """Put these parameters in the model's place, as its own dtypes; what the aggregator remembers stays.

        Raises:
            RunFailed: names that are not the model's own.
        """
        if other := sorted(self.parameters.keys() ^ weights.keys()):
            raise RunFailed(f"Replace: give the model's own parameters; '{other[0]}' is on one side only")
        self.parameters = {name: np.asarray(weights[name], own.dtype) for name, own in self.parameters.items()}

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """The innermost strategy's own arrays and numbers (moments, momenta); methods are kept by the checkpoint."""
        aggregator = chain(self.strategy)[-1]
        if not isinstance(aggregator, ServerOptimizer):
            return snapshot(aggregator)
        arrays: Arrays = {}
        return arrays, {STATE_DICT: _packed("state", aggregator.state_dict(), arrays)}

    def load_state(self, arrays: Arrays, info: dict[str, Any]) -> None:
        """Inverse of `state`, onto a freshly built strategy."""
        aggregator = chain(self.strategy)[-1]
        if isinstance(aggregator, ServerOptimizer):
            aggregator.load_state_dict(_unpacked(info[STATE_DICT], arrays))
        else:
            restore(aggregator, arrays, info)


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """Leave everything there is by now out of garbage collections."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def chain(strategy: Strategy) -> list[Strategy]:
    """The strategy and everything it wraps, outermost first; the last one is the aggregator."""
    inner = getattr(strategy, "inner", None)
    return [strategy, *(chain(inner) if isinstance(inner, Strategy) else [])]


def snapshot(strategy: Strategy) -> tuple[Arrays, dict[str, Any]]:
    """Attributes of one strategy that are arrays, numbers or text, or records, lists and dicts of arrays."""
    arrays: Arrays = {}
    info: dict[str, Any] = {}
    for name, value in vars(strategy).items():
        _flatten(name, value, arrays, info)
    return arrays, info


def restore(strategy: Strategy, arrays: Arrays, info: dict[str, Any]) -> None:
    """Inverse of `snapshot`; what it did not hold (functions, the inner strategy) stays as built."""
    for name, kind in info.items():
        setattr(strategy, name, _restore(name, kind, arrays))


def _packed(key: str, value: Any, arrays: Arrays) -> Any:
    """A `state_dict` as JSON-able structure, its arrays and tensors put into ``arrays``.

    Raises:
        RunFailed: a value that no checkpoint can hold.
    """
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, np.generic)):
        return {"kind": "scalar", "value": value}
    if isinstance(value, dict) and all(isinstance(k, str | int) and not isinstance(k, bool) for k in value):
        return {"kind": "dict", "items": [[k, _packed(f"{key}/{k}", v, arrays)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [_packed(f"{key}/{i}", v, arrays) for i, v in enumerate(value)]
        return {"kind": type(value).__name__, "items": items}
    if isinstance(value, torch.Tensor):
        arrays[key] = value.detach().cpu().numpy()
        return {"kind": "tensor", "key": key}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        arrays[key] = np.asarray(value)
        return {"kind": "array" if isinstance(value, np.ndarray) else "number", "key": key}
    raise RunFailed(
        f"the aggregator's {key} is a {type(value).__name__}, which no checkpoint can hold; keep numbers, strings, "
        "arrays, tensors, and lists and dicts of these in state"
    )


def _unpacked(packed: Any, arrays: Arrays) -> Any:
    """Inverse of `_packed`."""
    match packed["kind"]:
        case "scalar":
            return packed["value"]
        case "dict":
            return {k: _unpacked(v, arrays) for k, v in packed["items"]}
        case "list" | "tuple":
            items = [_unpacked(v, arrays) for v in packed["items"]]
            return items if packed["kind"] == "list" else tuple(items)
        case "tensor":
            return torch.from_numpy(np.array(arrays[packed["key"]]))
        case kind:
            return arrays[packed["key"]] if kind == "array" else arrays[packed["key"]][()]


def _mean_metric(usable: Sequence[ClientReply], key: str) -> float:
    """Weighted mean over the clients where the metric is defined: one that ran no step has no training loss."""
    defined = [(a.metrics[WEIGHT], a.metrics[key]) for a in usable if math.isfinite(a.metrics.get(key, math.nan))]
    return sum(w * v for w, v in defined) / sum(w for w, _ in defined) if defined else math.nan


def _mean_buffer(total: LaneSum, key: str, old: np.ndarray) -> np.ndarray:
    """Weighted mean in float64; an integer buffer is rounded back to its own type."""
    if key not in total.buffers or total.weight <= 0:
        return old
    mean = total.buffers[key] / total.weight
    # A sum of 0-d arrays (BatchNorm's count of batches) is a NumPy number: back to an array.
    return np.asarray(np.rint(mean) if np.issubdtype(old.dtype, np.integer) else mean, old.dtype)


def _flatten(key: str, value: Any, arrays: Arrays, info: dict[str, Any]) -> None:
    """Record one attribute: its kind in ``info``, its arrays in ``arrays``. Functions and the like are rebuilt."""
    if isinstance(value, np.generic):
        info[key] = {"kind": "number"}
        arrays[key] = np.asarray(value)
    elif value is None or isinstance(value, bool | int | float | str):
        info[key] = {"kind": "scalar", "value": value}
    elif isinstance(value, np.ndarray):
        info[key] = {"kind": "array"}
        arrays[key] = value
    elif isinstance(value, ArrayRecord):
        info[key] = {"kind": "record", "keys": list(value)}
        arrays.update({f"{key}/{k}": a.numpy() for k, a in value.items()})
    elif isinstance(value, list) and value and all(isinstance(v, np.ndarray | np.generic) for v in value):
        # Arithmetic on 0-d arrays gives NumPy numbers: they are weights like the rest, and keep their type.
        info[key] = {"kind": "list", "keys": [str(i) for i in range(len(value))]}
        arrays.update({f"{key}/{i}": np.asarray(v) for i, v in enumerate(value)})
    elif isinstance(value, dict) and all(isinstance(v, np.ndarray | np.generic | float | int) for v in value.values()):
        python = {k: isinstance(v, float | int) and not isinstance(v, np.generic) for k, v in value.items()}
        info[key] = {"kind": "dict", "keys": python}
        arrays.update({f"{key}/{k}": np.asarray(v) for k, v in value.items()})


def _restore(key: str, kind: dict[str, Any], arrays: Arrays) -> Any:
    match kind["kind"]:
        case "scalar":
            return kind["value"]
        case "array":
            return arrays[key]
        case "number":
            return arrays[key][()]
        case "record":
            return array_record({k: arrays[f"{key}/{k}"] for k in kind["keys"]})
        case "list":
            return [arrays[f"{key}/{k}"] for k in kind["keys"]]
        case _:
            held = {k: (arrays[f"{key}/{k}"], python) for k, python in kind["keys"].items()}
            return {k: value.item() if python else value for k, (value, python) in held.items()}
