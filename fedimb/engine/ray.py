"""ray: clients on persistent single-threaded actors of one private Ray head, reused across the runs of a sweep."""

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from flwr.app import RecordDict

from fedimb.engine.grid import Job, SimulationGrid
from fedimb.engine.lanes import LaneOutcome, Order
from fedimb.engine.processes import marked
from fedimb.engine.ray_private import lean_head
from fedimb.engine.ray_worker import Lane, Worker, batches
from fedimb.errors import ConfigError, RunFailed

_TRIES = 3
_STARTS = 3  # Ray gives its own head 30 s, which a busy machine exceeds
_QUEUED = 2  # calls in flight per actor: the next is already there when one ends


class RayEngine:
    """Starts (or joins) Ray, keeps the actors, hands out grids.

    Args:
        workers: actors; None: one per core of this machine, or per CPU of the cluster joined.
        gpus_per_worker: share of a GPU each actor reserves.
        address: ``host:port`` of a running cluster; None starts a private head that nobody else joins.

    Raises:
        ConfigError: the cluster at ``address`` cannot be reached.
    """

    def __init__(self, workers: int | None = None, gpus_per_worker: float = 0.0, address: str | None = None) -> None:
        self._count, self._gpus, self._address = workers, gpus_per_worker, address
        self._temp: Path | None = None
        self._actors: list[Any] = []
        self._owner = False
        self._ray: Any = None

    def start(self) -> None:
        """Start Ray and the actors; does nothing when they are running."""
        if self._actors:
            return
        self.connect()
        ray = self._ray
        count = self._count or int(ray.cluster_resources().get("CPU", 1))
        self._actors = [self._new_actor() for _ in range(count)]
        ray.get([actor.ready.remote() for actor in self._actors])

    def connect(self) -> str:
        """Start Ray, without actors, and return its address (host:port).

        A process that has Ray running already (a notebook) keeps it, and keeps it running.
        """
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray = ray
        if not ray.is_initialized():
            self._owner = True
            self._connect(ray)
        return str(ray.get_runtime_context().gcs_address)

    def _connect(self, ray: Any) -> None:
        """Join the cluster at ``address``, or start a private head."""
        options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        if self._address:
            _answers(self._address)
            ray.init(address=self._address, **options)
            return
        options |= {"address": "local", "num_cpus": self._count or os.cpu_count() or 1}
        options["object_store_memory"] = 512 * 1024**2
        for attempt in range(1, _STARTS + 1):
            try:
                with lean_head():
                    ray.init(**options, _temp_dir=f"{self.temp_dir}/{attempt}")
                return
            except Exception as error:  # Ray raises a bare Exception when its 30 seconds are over
                ray.shutdown()
                if attempt == _STARTS or "timed out" not in str(error):
                    raise RunFailed(
                        f"Ray did not start ({error}); is the machine overloaded or /dev/shm full? "
                        "engine=inline runs without it"
                    ) from error

    def _new_actor(self) -> Any:
        remote = self._ray.remote(num_cpus=1, num_gpus=self._gpus, max_restarts=0)(Worker)
        return remote.remote()

    def grid(self, job: Job) -> "RayGrid":
        """A grid over the run's clients; starts Ray on first use."""
        self.start()
        return RayGrid(self, job)

    def run(
        self, job: Job, lanes: list[Lane], shared: dict[str, Any], reduce: bool, costs: Sequence[float]
    ) -> list[LaneOutcome]:
        """Run lanes, the longest first; outcomes come back in lane order.

        Lanes whose actor dies are run again on a fresh one, with the same result: lanes hold no state.

        Raises:
            RunFailed: the same lanes killed their actor three times.
        """
        ray = self._ray
        shared_ref, path = ray.put(shared), [os.path.abspath(folder) for folder in sys.path]
        first_ids = [1 + sum(len(lane) for lane in lanes[:i]) for i in range(len(lanes))]
        waiting = deque(batches(costs, len(self._actors) * _QUEUED))
        tries: Counter[int] = Counter()
        outcomes: dict[int, LaneOutcome] = {}
        running: dict[Any, tuple[list[int], int, Any]] = {}  # call -> lanes, slot, actor
        load = [0] * len(self._actors)
        while waiting or running:
            while waiting and min(load) < _QUEUED:
                slot, batch = load.index(min(load)), waiting.popleft()
                actor = self._actors[slot]
                picked, ids = [lanes[i] for i in batch], [first_ids[i] for i in batch]
                running[actor.run_lanes.remote(job, picked, shared_ref, reduce, ids, path)] = (batch, slot, actor)
                load[slot] += 1
            done, _ = ray.wait(list(running), num_returns=1)
            batch, slot, actor = running.pop(done[0])
            current = self._actors[slot] is actor  # calls queued behind a crash come back from a dead actor too
            load[slot] -= int(current)
            try:
                outcomes.update(zip(batch, ray.get(done[0]), strict=True))
            except ray.exceptions.RayActorError as error:
                tries[batch[0]] += 1
                if tries[batch[0]] >= _TRIES:
                    clients = [entry[0] for i in batch for entry in lanes[i]]
                    raise RunFailed(f"clients {clients} ended their worker process {_TRIES} times: {error}") from error
                if current:
                    self._actors[slot] = self._new_actor()
                    load[slot] = 0
                waiting.appendleft(batch)
        return [outcomes[i] for i in range(len(lanes))]

    def worker_pids(self) -> list[int]:
        """Process ids of the actors."""
        pids: list[int] = self._ray.get([actor.ready.remote() for actor in self._actors])
        return pids

    def processes(self) -> list[int]:
        """Ids of every process this engine's private head consists of (empty when it joined a cluster)."""
        return marked(str(self._temp)) if self._temp is not None else []

    @property
    def temp_dir(self) -> str | None:
        """Folder of the private head, made before the head is, so that a run folder can name it in time."""
        if self._temp is None and self._address is None and not self._joined():
            # AF_UNIX names hold 107 bytes, so the head's folder must have a short name of its own.
            self._temp = Path(tempfile.mkdtemp(prefix="fedimb-", dir="/tmp" if os.path.isdir("/tmp") else None))
        return str(self._temp) if self._temp else None

    def _joined(self) -> bool:
        """Whether this process has a Ray that is not this engine's."""
        import ray

        return bool(ray.is_initialized()) and not self._owner

    def close(self) -> None:
        """Stop the actors, and Ray if this engine started it. Safe to call twice."""
        for actor in self._actors:
            with contextlib.suppress(Exception):  # already dead is what we want
                self._ray.kill(actor)
        self._actors = []
        if self._owner:
            self._ray.shutdown()
            self._owner = False
        if self._temp is not None:
            shutil.rmtree(self._temp, ignore_errors=True)
            self._temp = None
        self._ray = None

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _answers(address: str) -> None:
    """Raise ConfigError unless something listens at host:port: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"engine.address={address}: give host:port, as 10.0.0.5:6379")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ConfigError(f"engine.address={address}: no Ray cluster answers there ({error})") from error


class RayGrid(SimulationGrid):
    """Lanes over the engine's actors. Records that all messages share are put into the object store once."""

    def __init__(self, engine: RayEngine, job: Job) -> None:
        super().__init__(job.n_clients)
        self._engine, self._job = engine, job

    def run_lanes(self, lanes: Sequence[Sequence[Order]], reduce: bool, costs: Sequence[float]) -> list[LaneOutcome]:
        """Longest lane first; outcomes in lane order."""
        contents = [message.content for lane in lanes for _, message in lane]
        first = contents[0] if contents else RecordDict()
        shared = {k: v for k, v in first.items() if all(c.get(k) is v for c in contents)}
        packed: list[Lane] = [
            [
                (
                    client,
                    message.metadata.dst_node_id,
                    message.metadata.message_type,
                    RecordDict({k: v for k, v in message.content.items() if k not in shared}),
                )
                for client, message in lane
            ]
            for lane in lanes
        ]
        return self._engine.run(self._job, packed, shared, reduce, costs)
