"""The actors of a Ray engine: started, given lanes, replaced when they die."""

import contextlib
import logging
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from fedimb.engine.admission import Admission
from fedimb.engine.grid import Job
from fedimb.engine.lanes import LaneOutcome, LaneSum, Reduction
from fedimb.engine.ray_checks import why_died
from fedimb.engine.ray_sums import Collectors, MachineSums
from fedimb.engine.ray_worker import PackedLane, Worker, batches
from fedimb.errors import FedimbError, RunFailed

if TYPE_CHECKING:
    from fedimb.rundir.code import Code

_TRIES = 3
_QUEUED = 2  # calls in flight per actor that return every reply: the next is already there when one ends
_PATIENCE_S = 60.0  # without progress, before the user is warned
log = logging.getLogger("fedimb")


class RemoteMethod(Protocol):
    """A method of an actor, called the way Ray calls it."""

    def remote(self, *args: object) -> object:
        """Start a call; returns what `ray.wait` and `ray.get` take."""
        ...


class Actor(Protocol):
    """The handle of a `fedimb.engine.ray_worker.Worker` in a Ray process."""

    ready: RemoteMethod
    run_lanes: RemoteMethod
    run_lanes_apart: Any  # with options, as its two results are separate objects in Ray
    machine: RemoteMethod
    code: RemoteMethod


class Pool:
    """Persistent actors that run the lanes of one run at a time.

    Args:
        ray: the ray module, already connected.
        options: Ray options of each actor, such as ``num_gpus``.
        cluster: whether the actors may be on several machines, each of which then adds its actors' sums.

    Attributes:
        actors: the actors that are ready for work.
    """

    def __init__(self, ray: ModuleType, options: Mapping[str, object], cluster: bool = False) -> None:
        self._ray = ray
        self._collectors = Collectors(ray) if cluster else None
        self._machines: dict[Actor, str] = {}  # of a cluster: id of each actor's machine
        self._class = ray.remote(num_cpus=1, max_restarts=0, **options)(Worker)
        self.actors: list[Actor] = []
        self._starting: dict[object, Actor] = {}  # call that ends when an actor is ready -> actor
        self._failed_starts = 0
        exceptions = ray.exceptions
        # An actor killed by Ray's memory monitor does not raise RayActorError; results are lost with their machine.
        self._lost: tuple[type[Exception], ...] = (
            exceptions.RayActorError,
            exceptions.OutOfMemoryError,
            exceptions.NodeDiedError,
            exceptions.WorkerCrashedError,
            exceptions.ObjectLostError,
        )

    def fill(self, count: int) -> None:
        """Start ``count`` actors and wait until they are ready.

        Raises:
            RunFailed: they do not start; none is left running.
        """
        try:
            for _ in range(count):
                self._start_actor()
            while self._starting:
                done = self._wait(list(self._starting), f"{len(self.actors)} of {count} workers have started")
                for call in done:
                    self._on_ready(call)
        except BaseException:
            self.dismiss()
            raise

    def _start_actor(self) -> None:
        actor = self._class.remote()
        self._starting[actor.ready.remote()] = actor

    def _on_ready(self, call: object) -> None:
        """Add an actor that is ready, or start another in place of one that died while starting."""
        actor = self._starting.pop(call)
        try:
            self._ray.get(call)
            if self._collectors is not None:
                self._machines[actor] = self._ray.get(actor.machine.remote())
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= _TRIES:
                raise RunFailed(
                    f"worker processes do not start, {_TRIES} failed in a row; {why_died(error)}"
                ) from error
            self._start_actor()
        else:
            self._failed_starts = 0
            self.actors.append(actor)

    def _wait(self, calls: list[object], what: str) -> list[object]:
        """The calls that have ended: at least one, or none after a wait that the user was warned about."""
        done, _ = self._ray.wait(calls, timeout=_PATIENCE_S)
        if not done:
            log.warning("%s; waiting for a free CPU in Ray, or for a slow start", what)
        return list(done)

    def run(
        self,
        job: Job,
        lanes: list[PackedLane],
        shared: Mapping[str, object],
        reduce: Reduction,
        costs: Sequence[float],
        admission: Admission | None = None,
    ) -> list[LaneOutcome]:
        """Run lanes, the longest first; outcomes come back in lane order.

        Lanes whose actor dies are run again on another actor, one lane per call: lanes hold no state, so the result is
        the same, and a call with one lane needs less memory. A call's sum comes back with all its lanes or not at all,
        so that no client is in it twice. The actor is replaced as soon as a machine has room.

        Raises:
            RunFailed: the same lane killed its worker process three times.
        """
        ray = self._ray
        shared_ref, path = ray.put(shared), [os.path.abspath(folder) for folder in sys.path]
        # The worker unpickles it after extending its sys.path, as the class may be the user's own.
        packed = reduce if isinstance(reduce, bool) else ray.cloudpickle.dumps(reduce)
        first_ids = [1 + sum(len(lane) for lane in lanes[:i]) for i in range(len(lanes))]
        sums = MachineSums(ray, self._collectors, self._gone) if self._collectors is not None and reduce else None

        def start(actor: Actor, batch: list[int]) -> object:
            picked, ids = [lanes[i] for i in batch], [first_ids[i] for i in batch]
            checks = None
            if admission is not None:  # pickled apart, as contracts may be the user's own
                of_lanes = admission.only(client for lane in picked for client, *_ in lane)
                checks = ray.cloudpickle.dumps(of_lanes)
            if sums is None:
                return actor.run_lanes.remote(job, picked, shared_ref, packed, ids, path, checks)
            apart = actor.run_lanes_apart.options(num_returns=2)
            call, total = apart.remote(job, picked, shared_ref, packed, ids, path, checks)
            sums.start(call, total, self._machines[actor])
            return call

        def end(call: object, batch: list[int]) -> dict[int, LaneOutcome]:
            found = ray.get(call)
            if sums is not None:
                found = [LaneOutcome(replies, LaneSum(reduce)) for replies in found]
                sums.keep(call, batch)
            return dict(zip(batch, found, strict=True))

        # One call per actor sends one sum, and gives the largest stacks where clients of the same call are stacked.
        calls = (len(self.actors) + len(self._starting)) * (1 if job.stacked or reduce else _QUEUED)
        waiting = deque(batches(costs, calls))
        tries: Counter[int] = Counter()
        outcomes: dict[int, LaneOutcome] = {}
        while waiting:
            self._run_all(waiting, lanes, start, end, tries, outcomes)
            if sums is not None:
                waiting.extend([lane] for lane in sums.collect(outcomes))
                if waiting:
                    log.warning("a machine's sum was lost with it; its clients are run again")
        return [outcomes[i] for i in range(len(lanes))]

    def _run_all(
        self,
        waiting: deque[list[int]],
        lanes: list[PackedLane],
        start: Callable[[Actor, list[int]], object],
        end: Callable[[object, list[int]], dict[int, LaneOutcome]],
        tries: Counter[int],
        outcomes: dict[int, LaneOutcome],
    ) -> None:
        """Run all batches of lanes that are waiting, whoever dies; adds to ``outcomes`` and counts ``tries``."""
        ray = self._ray
        running: dict[object, tuple[list[int], Actor]] = {}  # call -> lanes, actor; the oldest first
        load = dict.fromkeys(self.actors, 0)
        while waiting or running:
            while waiting and load and min(load.values()) < _QUEUED:
                actor, batch = min(load, key=load.__getitem__), waiting.popleft()
                running[start(actor, batch)] = (batch, actor)
                load[actor] += 1
            if load:  # clients may take hours
                done, _ = ray.wait([*self._starting, *running])
            else:
                done = self._wait([*self._starting, *running], "no worker is running")
            for call in done:
                if call in self._starting:
                    self._on_ready(call)
                    load |= {actor: 0 for actor in self.actors if actor not in load}
                    continue
                batch, actor = running[call]
                # Only the oldest call of an actor was running: those queued behind it did not cause its death.
                blamed = next(lanes_of for lanes_of, of in running.values() if of is actor)
                del running[call]
                try:
                    outcomes |= end(call, batch)
                    if actor in load:
                        load[actor] -= 1
                except FedimbError as error:  # Ray's copy of it, whose text is the worker's traceback
                    raise getattr(error, "cause", error) from None
                except self._lost as error:
                    waiting.extendleft([lane] for lane in reversed(batch))
                    if actor in load:  # else known to be dead
                        del load[actor]
                        self._replace(actor)
                        if len(blamed) == 1:  # of several lanes, the next try shows which one
                            tries.update(blamed)
                        if tries[blamed[0]] >= _TRIES:
                            clients = [entry[0] for entry in lanes[blamed[0]]]
                            raise RunFailed(
                                f"clients {clients} killed their worker process {_TRIES} times; {why_died(error)}"
                            ) from error

    @property
    def _gone(self) -> tuple[type[Exception], ...]:
        """What says that a machine is gone with the sums on it, or can no longer start a process."""
        return (*self._lost, self._ray.exceptions.ActorUnschedulableError)

    def _replace(self, actor: Actor) -> None:
        self.actors.remove(actor)
        self._machines.pop(actor, None)
        with contextlib.suppress(Exception):  # usually dead already
            self._ray.kill(actor)
        log.warning("a worker process ended; its clients are run again")
        self._start_actor()

    def pids(self) -> list[int]:
        """Process ids of the actors that are ready."""
        pids: list[int] = self._ray.get([actor.ready.remote() for actor in self.actors])
        return pids

    def code(self, words: Iterable[str]) -> list["Code"]:
        """The code that each actor has imported for a run with these names in its configuration.

        An actor that does not reply in time, or has died, says nothing.
        """
        ray, path = self._ray, [os.path.abspath(folder) for folder in sys.path]
        calls = [actor.code.remote(sorted(words), path) for actor in self.actors]
        done, _ = ray.wait(calls, num_returns=len(calls), timeout=_PATIENCE_S) if calls else ([], [])
        found: list[Code] = []
        for call in done:
            try:
                found.append(ray.get(call))
            except self._lost as error:
                log.warning("a worker process ended before it could report its code; %s", why_died(error))
        return found

    def dismiss(self) -> None:
        """End all actors."""
        if self._collectors is not None:
            self._collectors.dismiss()
        for actor in [*self.actors, *self._starting.values()]:
            with contextlib.suppress(Exception):  # it may be dead already
                self._ray.kill(actor)
        self.actors, self._starting = [], {}
