"""engine=flower: the same app through ``flwr run``, with a private SuperLink that this launcher starts and stops.

For parity and benchmarks. Every setting that Flower's behaviour depends on (its home, port, telemetry, dependency
installation, working directory, Ray's address) is set here. How a run ended is read from its run folder, because
``flwr run`` exits with 0 even when the run fails.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from fedimb.engine import processes
from fedimb.engine.grid import Job, SimulationGrid
from fedimb.engine.ray import RayEngine
from fedimb.errors import RunFailed
from fedimb.plain import JsonObject
from fedimb.process_env import FLOWER, QUIET, RAY
from fedimb.rundir.folder import RunFolder

BUNDLE = Path(__file__).parent / "bundle" / "pyproject.toml"
_SWITCHES = FLOWER | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
_START_S = 120.0
_ASK_FLOWER_EVERY_S = 60.0  # each `flwr` command starts a new Python process, which takes seconds


class Place(TypedDict):
    """Where and how a Flower process runs: keyword arguments of `subprocess.Popen`."""

    cwd: Path
    env: dict[str, str]
    start_new_session: bool


class FlowerLauncher:
    """Starts a SuperLink in simulation mode on first use; each run is one ``flwr run``.

    Args:
        workers: Ray actors of a run; None: one per core.
    """

    reusable = False

    def __init__(self, workers: int | None = None) -> None:
        # Flower gives Ray one attempt of 30 seconds to start; here it may take longer, and is tried again.
        self._ray, self._address = RayEngine(workers), ""
        self._temp: Path | None = None
        self._home = Path()  # Flower's folder inside the temporary one, once started
        self._superlink: subprocess.Popen[bytes] | None = None

    def grid(self, job: Job) -> SimulationGrid:
        """Not available: the run happens in another process, see `run_elsewhere`."""
        raise RunFailed("engine=flower runs the whole loop in a Flower ServerApp")

    def run_elsewhere(self, job: Job, advance: Callable[[int], None]) -> None:
        """Submit the run and return when Flower is done with it; calls ``advance(n)`` whenever n more rounds are done.

        Raises:
            RunFailed: Flower could not start it, or ended it without recording an outcome in the run folder.
        """
        self.start()
        folder, done, flower, asked = RunFolder(Path(job.run_dir)), 0, "", time.monotonic()
        folder.set_status("running")  # so that the status of an earlier attempt is not taken for this one's
        (self._home / "run.toml").write_text(f"run-dir = {json.dumps(job.run_dir, ensure_ascii=False)}\n")
        nodes = f"num-supernodes={job.n_clients} client-resources-num-cpus=1"
        words = ["--run-config", str(self._home / "run.toml"), "--federation-config", nodes]
        run_id = str(self._flwr("run", str(BUNDLE.parent), "fedimb", *words)["run-id"])
        while not flower.startswith("finished"):
            time.sleep(0.5)
            rounds = len({line["step"] for line in folder.metrics()})  # several rows log the same step
            advance(rounds - done)
            done = rounds
            # After a run ends it still reports to MLflow, and Flower still has to release Ray: poll until it has.
            if folder.status() != "running" or time.monotonic() - asked > _ASK_FLOWER_EVERY_S:
                (run,) = self._flwr("list", "fedimb", "--run-id", run_id)["runs"]
                flower, asked = str(run["status"]), time.monotonic()
        if folder.status() == "running":
            raise RunFailed(f"Flower ended the run, not fedimb: {run}; {self._log_tail()}")

    def start(self) -> None:
        """Start the SuperLink, unless it is running. Raises RunFailed when it does not come up."""
        if self._superlink is not None and self._superlink.poll() is None:
            return
        self._address = self._ray.connect()
        self._home = home = Path(self.temp_dir) / "flower"
        for name in ("flwr", "neutral"):  # neutral: Ray's workers import from their working directory first
            (home / name).mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        link = f'[superlink]\ndefault = "fedimb"\n[superlink.fedimb]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        (home / "flwr" / "config.toml").write_text(link)
        # Reachable from this machine only: anyone who can reach a SuperLink can make it run arbitrary code.
        words = ["--host", "127.0.0.1", "--port", str(port), "--insecure", "--simulation", "--log-file", f"{home}/log"]
        with open(home / "superlink.log", "wb") as log:
            self._superlink = subprocess.Popen(["flower-superlink", *words], stdout=log, stderr=log, **self._place())
        deadline = time.monotonic() + _START_S
        while not _healthy(port):
            if self._superlink.poll() is not None or time.monotonic() > deadline:
                raise RunFailed(f"Flower's SuperLink did not start; {self._log_tail()}")
            time.sleep(0.2)

    def _place(self) -> Place:
        """Where and how every Flower process runs: with the commands of this Python's environment, in its own session
                so
        that Ctrl-C reaches only this process.
        """
        own = {"FLWR_HOME": str(self._home / "flwr"), "RAY_ADDRESS": self._address, "FEDIMB_FLOWER_DIR": self.temp_dir}
        own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {
            "cwd": self._home / "neutral",
            "env": QUIET | RAY | os.environ | _SWITCHES | own,
            "start_new_session": True,
        }

    def _flwr(self, *words: str) -> JsonObject:
        """The JSON that a ``flwr`` command prints; other text may come before it."""
        call = ["flwr", *words, "--format", "json"]
        done = subprocess.run(call, capture_output=True, text=True, timeout=300, **self._place())
        with contextlib.suppress(ValueError):
            output: JsonObject = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("{"))[0]
            if output.get("success", True):
                return output
        raise RunFailed(f"flwr {words[0]} failed: {(done.stdout + done.stderr).strip()[-600:]}")

    def _log_tail(self) -> str:
        return f"the end of its log: {(self._home / 'superlink.log').read_text(errors='replace')[-1500:]}"

    @property
    def temp_dir(self) -> str:
        """The private Ray's folder, short and unique; it marks the processes of Ray and of Flower."""
        if self._temp is None:
            self._temp = Path(self._ray.temp_dir or tempfile.mkdtemp(prefix="fedimb-"))
        return str(self._temp)

    def processes(self) -> list[int]:
        """Ids of the SuperLink and of everything it started."""
        return processes.marked(self.temp_dir) if self._temp else []

    def close(self) -> None:
        """End the SuperLink and what it started. Safe to call twice."""
        if self._superlink is not None:
            processes.stop(self._superlink, str(self._home))
            self._superlink = None
        self._ray.close()
        if self._temp is not None:
            shutil.rmtree(self._temp, ignore_errors=True)
            self._temp = None


def _healthy(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
        return bool(response.status == 200)
    return False
