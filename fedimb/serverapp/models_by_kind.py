"""The model of a run whose clients train different networks (``clients.models``): weights and an aggregator for each
group of weights that is averaged.

To the loop and the checkpoint it is one model, whose arrays are named ``<group>/<name>``.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.config.site_models import Layout, arrays_of_kind
from fedimb.contracts import platform as names
from fedimb.engine.lanes import WEIGHT, Instruction, LaneOutcome, Place
from fedimb.errors import RunFailed
from fedimb.plain import StateDict
from fedimb.records import Arrays, array_record
from fedimb.serverapp.aggregator import Aggregator, chain
from fedimb.serverapp.state_dict import load_state, state_of
from fedimb.serverapp.sums_by_kind import SumsByKind
from fedimb.sums import WeightLimits


@dataclass(frozen=True)
class Group:
    """Weights that are averaged over the same clients.

    Attributes:
        kinds: kinds of these clients.
        strategy: the aggregator of these weights.
        aggregator: the adapter around the run's methods with ``strategy`` in the middle, see `inside`.
    """

    kinds: tuple[str, ...]
    strategy: Strategy
    aggregator: Aggregator

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The run's methods around this group's aggregator, inside the block."""
        innermost: Any = chain(self.aggregator.strategy)[-2]
        before = innermost.inner
        innermost.inner = self.strategy
        try:
            yield
        finally:
            innermost.inner = before


class ModelsByKind(Aggregator):
    """The weights of all kinds of networks.

    Args:
        layout: what is averaged among whom.
        kinds: kind of each client, by client id.
        groups: by name, in the order of `Layout.groups`.
    """

    def __init__(self, layout: Layout, kinds: Sequence[str], groups: Mapping[str, Group]) -> None:
        self._layout, self._kinds, self._groups = layout, kinds, dict(groups)
        self._sums: SumsByKind | None = None
        self.strategy = next(iter(groups.values())).aggregator.strategy
        self.linear = all(group.aggregator.linear for group in groups.values())

    @property
    def parameters(self) -> Arrays:
        """Trainable weights of all groups, as ``<group>/<name>``."""
        return self._all("parameters")

    @parameters.setter
    def parameters(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._put("parameters", arrays)

    @property
    def buffers(self) -> Arrays:
        """Buffers of all groups, as ``<group>/<name>``."""
        return self._all("buffers")

    @buffers.setter
    def buffers(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._put("buffers", arrays)

    def _all(self, what: str) -> Arrays:
        own = {name: getattr(group.aggregator, what) for name, group in self._groups.items()}
        return {f"{group}/{name}": value for group, arrays in own.items() for name, value in arrays.items()}

    def _put(self, what: str, arrays: Mapping[str, np.ndarray]) -> None:
        for name, group in self._groups.items():
            own = getattr(group.aggregator, what)
            setattr(group.aggregator, what, {key: arrays[f"{name}/{key}"] for key in own})

    def records(self) -> Callable[[int], dict[str, ArrayRecord]]:
        """See `Aggregator.records`: clients of the same kind share one object."""
        parameters, buffers = self.parameters, self.buffers
        made: dict[str, dict[str, ArrayRecord]] = {}

        def of(client: int) -> dict[str, ArrayRecord]:
            kind = self._kinds[client]
            if kind not in made:
                made[kind] = {names.ARRAYS: array_record(arrays_of_kind(kind, parameters))}
                if own := arrays_of_kind(kind, buffers):
                    made[kind][names.BUFFERS] = array_record(own)
            return made[kind]

        return of

    @property
    def common_buffers(self) -> Arrays:
        """None: `configure` gives each client those of its kind."""
        return {}

    @property
    def strategies(self) -> list[Strategy]:
        """The methods, and every group's aggregator."""
        return [*chain(self.strategy)[:-1], *(s for group in self._groups.values() for s in chain(group.strategy))]

    @property
    def state_owner(self) -> object:
        """This object, which keeps the state of every group's aggregator."""
        return self

    def reduction(
        self,
        limits: WeightLimits,
        places: Mapping[int, Place] | None = None,
        sent: tuple[Arrays, Arrays] | None = None,
    ) -> Any:
        """See `Aggregator.reduction`: a sum for each group, made once all replies are here; the rest must be None."""
        if places is not None or sent is not None:
            raise RunFailed("updates without rounds are differences to the weights of one network")
        reductions = {}
        for name, group in self._groups.items():
            with group.inside():
                reductions[name] = group.aggregator.reduction(limits)
        self._sums = SumsByKind(self._layout, self._kinds, reductions)
        return self._sums

    def configure(self, server_round: int, nodes: dict[int, int]) -> list[Instruction]:
        """See `Aggregator.configure`: each client gets the weights of its kind, and what the aggregators add."""
        contents: dict[int, RecordDict] = {}
        messages: dict[int, Message] = {}
        for group in self._groups.values():
            own = {node: client for node, client in nodes.items() if self._kinds[client] in group.kinds}
            if not own:
                continue
            with group.inside():
                made = group.aggregator.configure(server_round, own)
            for client, message in made:
                messages.setdefault(client, message)
                contents[client] = RecordDict({**contents.get(client, {}), **message.content})
        records = self.records()
        for client, message in messages.items():
            message.content = RecordDict({**contents[client], **records(client)})
        return sorted(messages.items())

    def aggregate(
        self, server_round: int, outcome: LaneOutcome, instructions: Sequence[Instruction], step: float = 1.0
    ) -> dict[str, float]:
        """See `Aggregator.aggregate`: every group by itself; metrics are means over all clients by their weights.

        A group without a usable reply stays as it was.
        """
        if step != 1.0:
            raise RunFailed("a factor on the mean update is of a pace, whose clock knows one network")
        if self._sums is None:
            raise RunFailed("a round of several networks was aggregated before it was sent")
        found: dict[str, list[tuple[float, float]]] = {}
        for name, own in self._sums.outcomes.items():
            group = self._groups[name]
            with group.inside():
                metrics = group.aggregator.aggregate(server_round, own, instructions)
            weight = sum(reply.metrics[WEIGHT] for reply in own.replies if reply.usable)
            for key, value in metrics.items() if len(group.kinds) == 1 else ():
                found.setdefault(key, []).append((weight, value))
        self._sums = None
        return {key: _mean(parts) for key, parts in found.items()}

    def replace(self, weights: Mapping[str, np.ndarray]) -> None:
        """Not available: a method that makes the weights of one model knows nothing of the others'."""
        raise RunFailed("Replace: the clients of this run train different networks (clients.models)")

    def state_dict(self) -> StateDict:
        """State of every group's aggregator by the group's name."""
        return {name: state_of(group.strategy) for name, group in self._groups.items()}

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        for name, group in self._groups.items():
            load_state(group.strategy, state[name])


def _mean(parts: Sequence[tuple[float, float]]) -> float:
    defined = [(weight, value) for weight, value in parts if np.isfinite(value)]
    total = sum(weight for weight, _ in defined)
    return sum(weight * value for weight, value in defined) / total if total else float("nan")
