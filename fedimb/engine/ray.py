"""engine=ray: clients on persistent single-threaded actors of one private Ray head, reused over a sweep's runs."""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from flwr.app import RecordDict

from fedimb import process_env
from fedimb.config.engine_settings import check_settings
from fedimb.engine.grid import Job, SimulationGrid
from fedimb.engine.lanes import Lane, LaneOutcome, Reduction
from fedimb.engine.processes import end, marked, record
from fedimb.engine.ray_checks import check_address, check_gpus, same_cluster, worker_count
from fedimb.engine.ray_pool import Pool
from fedimb.engine.ray_private import lean_head
from fedimb.engine.ray_worker import PackedLane
from fedimb.errors import ConfigError, RunFailed
from fedimb.process_state import handlers, log_level
from fedimb.rundir.code import Code, words_of
from fedimb.schema import RunConfig

_STARTS = 3  # Ray allows its head 30 s to start, which a busy machine exceeds


class RayEngine:
    """Starts (or joins) Ray, keeps its actors and returns grids over them.

    Args:
        workers: actors; None: one per core of this machine, or one per CPU of the cluster it joins.
        gpus_per_worker: share of a GPU each actor reserves.
        address: ``host:port`` of a running cluster; None starts a private head that nobody else joins. Nothing else
            decides this: ``RAY_ADDRESS`` and the file in which Ray records the last cluster are ignored.

    Raises:
        ConfigError: a setting that no machine could satisfy.
    """

    reusable = True

    def __init__(self, workers: int | None = None, gpus_per_worker: float = 0.0, address: str | None = None) -> None:
        check_settings(workers, gpus_per_worker, address)
        self._count, self._gpus, self._address = workers, gpus_per_worker, address
        self._temp: Path | None = None
        self.pool: Pool | None = None
        self._owner = False
        self._ray: Any = None
        self._process = contextlib.ExitStack()  # what Ray changes in this process, to be restored

    def start(self) -> Pool:
        """Start Ray and the actors, unless they are running; returns the actors.

        Raises:
            ConfigError: no cluster at ``address``, or not enough room for ``workers``.
            RunFailed: Ray or the actors do not start.
        """
        if self.pool is None:
            self.connect()
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            count = worker_count(self._count, nodes, self._gpus)
            options = {"num_gpus": self._gpus} | ({"scheduling_strategy": "SPREAD"} if self._address else {})
            pool = Pool(self._ray, options, cluster=len(nodes) > 1)
            pool.fill(count)
            self.pool = pool
        return self.pool

    def connect(self) -> str:
        """Start Ray, without actors, and return its address (host:port).

        If Ray is already running in this process (a notebook), it is used and left running.

        Raises:
            ConfigError: no cluster at ``address``, or the process is already in another one.
            RunFailed: Ray does not start.
        """
        # The head and its workers inherit these variables; this process needs them only while Ray starts.
        with process_env.defaults(process_env.QUIET | process_env.RAY), contextlib.ExitStack() as process:
            process.enter_context(handlers())
            import ray

            self._ray = ray
            if not ray.is_initialized():
                self._owner = True
                process.enter_context(log_level("ray", logging.ERROR))
                self._connect(ray)
                self._process = process.pop_all()
        running = str(ray.get_runtime_context().gcs_address)
        if self._address and not self._owner and not same_cluster(self._address, running):
            raise ConfigError(
                f"engine.address={self._address}: this process is already in the Ray cluster {running}; "
                "call ray.shutdown() first, or leave engine.address=null to use that one"
            )
        return running

    def _connect(self, ray: ModuleType) -> None:
        """Join the cluster at ``address``, or start a private head."""
        options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        if self._address:
            check_address(self._address)
            try:
                ray.init(address=self._address, **options)
            except Exception as error:  # Ray raises various types: ConnectionError, RuntimeError, ValueError
                ray.shutdown()
                reason = next(iter(str(error).splitlines()), "") or type(error).__name__
                raise ConfigError(
                    f"engine.address={self._address}: cannot join the cluster ({reason}); run fedimb on one of its "
                    "machines, with the Ray and Python versions of the cluster"
                ) from error
            return
        check_gpus(self._gpus)
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

    def grid(self, job: Job) -> "RayGrid":
        """A grid over the run's clients; starts Ray on first use."""
        return RayGrid(self.start(), job)

    def code(self, config: RunConfig) -> list[Code]:
        """The code that each actor has imported for this run: on a cluster its machines may have other files."""
        return self.pool.code(words_of(config)) if self.pool is not None else []

    def worker_pids(self) -> list[int]:
        """Process ids of the actors; empty before they are started."""
        return self.pool.pids() if self.pool is not None else []

    def processes(self) -> list[int]:
        """Ids of all processes of this engine's private head (empty when it joined a cluster)."""
        return marked(str(self._temp)) if self._temp is not None else []

    @property
    def temp_dir(self) -> str | None:
        """Folder of the private head, made before the head is, so that a run folder can name it in time."""
        if self._temp is None and self._address is None and not self._joined():
            # AF_UNIX socket paths hold at most 107 bytes, so the head needs a folder with a short name.
            self._temp = Path(tempfile.mkdtemp(prefix="fedimb-", dir="/tmp" if os.path.isdir("/tmp") else None))
        return str(self._temp) if self._temp else None

    def _joined(self) -> bool:
        """Whether Ray runs in this process but was not started by this engine."""
        import ray

        return bool(ray.is_initialized()) and not self._owner

    def close(self) -> None:
        """Stop the actors, and Ray if this engine started it. Safe to call twice."""
        if self.pool is not None:
            self.pool.dismiss()
            self.pool = None
        started = record(self.processes())
        if self._owner:
            self._ray.shutdown()
            self._owner = False
        self._process.close()
        end(started)  # Ray forgets its agents when it is interrupted while it starts
        if self._temp is not None:
            shutil.rmtree(self._temp, ignore_errors=True)
            self._temp = None
        self._ray = None

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class RayGrid(SimulationGrid):
    """Lanes over a pool of actors. Records that all messages share are put into the object store once."""

    def __init__(self, pool: Pool, job: Job) -> None:
        super().__init__(job.n_clients)
        self._pool, self._job = pool, job

    def run_lanes(self, lanes: Sequence[Lane], reduce: Reduction, costs: Sequence[float]) -> list[LaneOutcome]:
        """Longest lane first; outcomes in lane order."""
        contents = [message.content for lane in lanes for _, message in lane]
        first = contents[0] if contents else RecordDict()
        shared = {k: v for k, v in first.items() if all(c.get(k) is v for c in contents)}
        packed: list[PackedLane] = [
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
        return self._pool.run(self._job, packed, shared, reduce, costs, self.admission)
