"""One sum per machine of a Ray cluster: what its workers add up stays there until the machine has added it.

Without this the driver would receive a sum from every worker: with 64 workers and 1.2 million parameters 614 MB a
round, with four machines 38 MB. Sums are exact (`fedimb.sums`), so it changes no bit. Does not import ray.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from fedimb import process_env
from fedimb.engine.lanes import LaneOutcome, LaneSum
from fedimb.engine.ray_checks import why_died
from fedimb.errors import FedimbError, RunFailed

_TRIES = 3


class Collector:
    """The actor of one machine that adds its workers' sums; it computes for milliseconds and reserves no CPU."""

    def __init__(self) -> None:
        process_env.set_defaults()

    def use(self, path: list[str]) -> None:
        """Make the classes of the driver's `sys.path` importable, for sums that hold a user's own class."""
        sys.path.extend(folder for folder in path if folder not in sys.path)

    def add(self, *totals: LaneSum) -> LaneSum:
        """The sum of the sums, in their order."""
        whole = LaneSum(totals[0].how)
        for total in totals:
            whole.add(total)
        return whole


class Collectors:
    """The collectors of a cluster's machines, each started when its machine first has two sums to add.

    Args:
        ray: the ray module, already connected.
    """

    def __init__(self, ray: ModuleType) -> None:
        self._ray = ray
        self._class = ray.remote(num_cpus=0, max_restarts=0)(Collector)
        self._of: dict[str, Any] = {}

    def on(self, machine: str) -> Any:
        """The actor on a machine, by the id of its Ray node."""
        if machine not in self._of:
            strategies = self._ray.util.scheduling_strategies
            here = strategies.NodeAffinitySchedulingStrategy(node_id=machine, soft=False)
            self._of[machine] = self._class.options(scheduling_strategy=here).remote()
        return self._of[machine]

    def dismiss(self, machine: str | None = None) -> None:
        """End the actor of a machine, or all of them."""
        for name in [machine] if machine is not None else list(self._of):
            if (actor := self._of.pop(name, None)) is not None:
                with contextlib.suppress(Exception):  # it may be dead already
                    self._ray.kill(actor)


class MachineSums:
    """The sums of one exchange, by the machine that holds them.

    Args:
        ray: the ray module.
        collectors: of the cluster.
        lost: exceptions that mean that a machine, or what it held, is gone.
    """

    def __init__(self, ray: ModuleType, collectors: Collectors, lost: tuple[type[Exception], ...]) -> None:
        self._ray, self._collectors, self._lost = ray, collectors, lost
        self._started: dict[object, tuple[object, str]] = {}  # call -> its sum, machine
        self._held: dict[str, list[tuple[list[int], object]]] = {}  # machine -> lanes and sum of each call
        self._failures = 0

    def start(self, call: object, total: object, machine: str) -> None:
        """A call was made on a machine; ``total`` refers to the sum that it will leave there."""
        self._started[call] = total, machine

    def keep(self, call: object, lanes: list[int]) -> None:
        """The call has ended: the machine holds the sum over these lanes."""
        total, machine = self._started.pop(call)
        self._held.setdefault(machine, []).append((lanes, total))

    def collect(self, outcomes: dict[int, LaneOutcome]) -> list[int]:
        """Give each machine's sum to the first of its lanes, in place.

        Returns:
            lanes whose sum is lost with its machine: they have to run again, all clients of a sum or none, so that no
            client is counted twice.

        Raises:
            FedimbError: sums that cannot be added, by a fault of an aggregator's own code.
            RunFailed: machines keep losing their sums.
        """
        again: list[int] = []
        asked = {machine: self._asked(machine, [total for _, total in held]) for machine, held in self._held.items()}
        for machine, held in self._held.items():
            lanes = [lane for own, _ in held for lane in own]
            try:
                outcomes[lanes[0]].total = self._ray.get(asked[machine])
            except FedimbError as error:  # Ray's copy of it, whose text is the machine's traceback
                raise getattr(error, "cause", error) from None
            except self._lost as error:
                again += lanes
                self._collectors.dismiss(machine)
                self._failures += 1
                if self._failures >= _TRIES:
                    raise RunFailed(
                        f"machines of the cluster lost the sums of their clients {_TRIES} times; {why_died(error)}"
                    ) from error
        self._held = {}
        return sorted(again)

    def _asked(self, machine: str, totals: Sequence[object]) -> object:
        """A reference to the sum of a machine's sums; a single one is it already."""
        if len(totals) == 1:
            return totals[0]
        collector = self._collectors.on(machine)
        collector.use.remote([os.path.abspath(folder) for folder in sys.path])
        return collector.add.remote(*totals)
