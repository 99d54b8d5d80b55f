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
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.aggregators.server_optimizer import ServerOptimizer, merge_replies
from fedimb.contracts import platform as names
from fedimb.contracts.optimizer import CLIENT
from fedimb.engine.grid import SimulationGrid
from fedimb.engine.lanes import WEIGHT, ClientReply, Instruction, Lane, LaneOutcome, LaneSum, Reduction
from fedimb.errors import RunDiverged, RunFailed
from fedimb.records import Arrays, array_record, to_numpy
from fedimb.serverapp.state_dict import load_state, state_of


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
            content.update(merge_replies(self.parameters, totals, sums, columns))
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

    def state_dict(self) -> dict[str, Any]:
        """What the innermost strategy keeps (moments, momenta); methods are kept by the checkpoint."""
        return state_of(chain(self.strategy)[-1])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, onto a freshly built strategy."""
        load_state(chain(self.strategy)[-1], state)


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
