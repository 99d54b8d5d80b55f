"""flower: the same app through ``flwr run``, with a private SuperLink that this launcher starts and ends.

For parity and benchmarks. Every switch that decides whether Flower behaves (its home, port, telemetry, dependency
installation, working directory, Ray's address) is set here, and how a run ended is read from its run folder:
``flwr run`` itself answers 0 when a run fails.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedimb.engine import processes
from fedimb.engine.grid import Job, SimulationGrid
from fedimb.engine.ray import RayEngine
from fedimb.errors import RunFailed

BUNDLE = Path(__file__).parent / "bundle" / "pyproject.toml"
_ENV = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}
_ENDED = ("finished", "failed", "waiting", "killed")
_START_S = 120.0
_ASK_FLOWER_EVERY_S = 60.0  # the command starts a Python of its own, which costs seconds


class FlowerLauncher:
    """Starts a SuperLink in simulation mode on first use; each run is one ``flwr run``.

    Args:
        workers: Ray actors of a run; None: one per core.
    """

    def __init__(self, workers: int | None = None) -> None:
        # Flower gives Ray 30 seconds to start, once; here it may need longer, and is tried again.
        self._ray, self._address = RayEngine(workers), ""
        self._temp: Path | None = None
        self._superlink: subprocess.Popen[bytes] | None = None

    def grid(self, job: Job) -> SimulationGrid:
        """There is none in this process: see `run_elsewhere`."""
        raise RunFailed("engine=flower runs the whole loop in a Flower ServerApp")

    def run_elsewhere(self, job: Job, advance: Callable[[int], None]) -> None:
        """Submit the run and return when its folder says how it ended; ``advance(n)`` as n more rounds are done.

        Raises:
            RunFailed: Flower could not start it, or ended it without a word in the run folder.
        """
        self.start()
        folder, home = Path(job.run_dir), self._home
        status = folder / "status.json"
        before = status.stat().st_mtime_ns
        (home / "run.toml").write_text(f"run-dir = {json.dumps(job.run_dir)}\n")
        nodes = f"num-supernodes={job.n_clients} client-resources-num-cpus=1"
        words = ["--run-config", str(home / "run.toml"), "--federation-config", nodes, "--format", "json"]
        run_id = str(self._flwr("run", str(home / "app"), "fedimb", *words)["run-id"])
        done, asked = 0, time.monotonic()
        while status.stat().st_mtime_ns == before or json.loads(status.read_text())["status"] not in _ENDED:
            time.sleep(0.5)
            rounds = _rounds(folder)
            advance(rounds - done)
            done = rounds
            if time.monotonic() - asked > _ASK_FLOWER_EVERY_S:
                (run,) = self._flwr("list", "fedimb", "--run-id", run_id, "--format", "json")["runs"]
                if str(run["status"]).startswith("finished"):
                    raise RunFailed(f"Flower ended the run without fedimb's doing: {run}; {self._log_tail()}")
                asked = time.monotonic()

    def start(self) -> None:
        """Start the SuperLink; does nothing when it runs. Raises RunFailed when it does not come up."""
        if self._superlink is not None:
            return
        self._address = self._ray.connect()
        home = self._home
        for name in ("app", "flwr", "neutral"):  # neutral: Ray's workers import from their working directory first
            (home / name).mkdir(parents=True)
        shutil.copyfile(BUNDLE, home / "app" / "pyproject.toml")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        link = f'[superlink]\ndefault = "fedimb"\n[superlink.fedimb]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        (home / "flwr" / "config.toml").write_text(link)
        words = ["--insecure", "--simulation", "--port", str(port), "--log-file", str(home / "flower.log")]
        with open(home / "superlink.log", "wb") as log:
            self._superlink = subprocess.Popen(
                ["flower-superlink", *words], stdout=log, stderr=log, start_new_session=True, **self._place()
            )
        deadline = time.monotonic() + _START_S
        while not _healthy(port):
            if self._superlink.poll() is not None or time.monotonic() > deadline:
                raise RunFailed(f"Flower's SuperLink did not start; {self._log_tail()}")
            time.sleep(0.2)

    def _place(self) -> dict[str, Any]:
        """Working directory and environment of every Flower process; its commands stand beside this Python."""
        own = {"FLWR_HOME": str(self._home / "flwr"), "RAY_ADDRESS": self._address, "FEDIMB_FLOWER_DIR": self.temp_dir}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {"cwd": self._home / "neutral", "env": os.environ | _ENV | own | {"PATH": path}}

    def _flwr(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(["flwr", *words], capture_output=True, text=True, timeout=300, **self._place())
        _, brace, rest = done.stdout.partition("{")
        answer: dict[str, Any] = json.JSONDecoder().raw_decode(brace + rest)[0] if brace else {}
        if not answer.get("success", bool(brace)):
            raise RunFailed(f"flwr {words[0]} said: {(done.stdout + done.stderr).strip()[-600:]}")
        return answer

    def _log_tail(self) -> str:
        log = self._home / "superlink.log"
        return f"the end of its log: {log.read_text(errors='replace')[-1500:]}"

    @property
    def temp_dir(self) -> str:
        """The private Ray's folder, short and unique: the mark of Ray's processes and of Flower's."""
        if self._temp is None:
            self._temp = Path(self._ray.temp_dir or tempfile.mkdtemp(prefix="fedimb-"))
        return str(self._temp)

    @property
    def _home(self) -> Path:
        return Path(self.temp_dir) / "flower"

    def processes(self) -> list[int]:
        """Ids of the SuperLink and of everything it started."""
        return processes.marked(self.temp_dir) if self._temp else []

    def close(self) -> None:
        """End the SuperLink and what it started. Safe to call twice."""
        if self._superlink is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._superlink.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._superlink.wait(timeout=10)
            processes.end(processes.record(processes.marked(str(self._home))))
            self._superlink = None
        self._ray.close()
        if self._temp is not None:
            shutil.rmtree(self._temp, ignore_errors=True)
            self._temp = None


def _healthy(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def _rounds(folder: Path) -> int:
    """Rounds whose metrics are written (several rows log the same step)."""
    file = folder / "metrics.jsonl"
    return len({json.loads(line)["step"] for line in file.read_text().splitlines()}) if file.exists() else 0
