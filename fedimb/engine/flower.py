"""flower: the same app through ``flwr run``, with a private SuperLink that this launcher starts and ends.

For parity and benchmarks. Every switch that decides whether Flower behaves (its home, ports, telemetry, dependency
installation, working directory, Ray address) is set here, and the exit code tells the truth: ``flwr run`` itself
answers 0 when a run fails.
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
from fedimb.errors import RunFailed

BUNDLE = Path(__file__).parent / "bundle" / "pyproject.toml"
_ENV = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_ADDRESS": "local",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}
_ENDED = ("finished", "failed", "waiting", "killed")
_START_S = 120.0
_ASK_FLOWER_EVERY_S = 60.0


class FlowerLauncher:
    """Starts a SuperLink in simulation mode on first use; each run is one ``flwr run``.

    Args:
        workers: Ray actors of a run; None: one per core.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or os.cpu_count() or 1
        self._temp: Path | None = None
        self._superlink: subprocess.Popen[bytes] | None = None

    def grid(self, job: Job) -> SimulationGrid:
        """There is none in this process."""
        raise RunFailed("engine=flower runs the whole loop in a Flower ServerApp; use run_elsewhere")

    def run_elsewhere(self, job: Job, advance: Callable[[int], None]) -> None:
        """Submit the run and return when its folder says how it ended.

        Raises:
            RunFailed: Flower could not start it, or ended it without a word in the run folder.
        """
        self.start()
        assert self._temp is not None
        folder = Path(job.run_dir)
        before = (folder / "status.json").stat().st_mtime_ns
        run_toml = self._temp / "run.toml"
        run_toml.write_text(f"run-dir = {json.dumps(job.run_dir)}\n")
        federation = f"num-supernodes={job.n_clients} client-resources-num-cpus=1 init-args-num-cpus={self._workers} verbose=false"
        words = ["run", str(self._temp / "app"), "fedimb", "--run-config", str(run_toml)]
        answer = self._flwr(*words, "--federation-config", federation, "--format", "json")
        run_id = str(answer.get("run-id", ""))
        if not run_id:
            raise RunFailed(f"flwr run did not start the run: {answer}")
        done, asked = 0, time.monotonic()
        while True:
            rounds = _rounds(folder)
            advance(rounds - done)
            done = rounds
            status = folder / "status.json"
            if status.stat().st_mtime_ns != before and json.loads(status.read_text())["status"] in _ENDED:
                return
            if time.monotonic() - asked > _ASK_FLOWER_EVERY_S:
                asked = time.monotonic()
                if (said := self._status(run_id)).startswith("finished"):
                    raise RunFailed(f"Flower ended the run ({said}) before it began; {self._log_tail()}")
            time.sleep(0.5)

    def start(self) -> None:
        """Start the SuperLink; does nothing when it runs. Raises RunFailed when it does not come up."""
        if self._superlink is not None:
            return
        temp = Path(self.temp_dir)
        for name in ("app", "flwr", "neutral"):  # neutral: Ray workers import from their working directory first
            (temp / name).mkdir()
        shutil.copyfile(BUNDLE, temp / "app" / "pyproject.toml")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        connection = (
            f'[superlink]\ndefault = "fedimb"\n\n[superlink.fedimb]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        (temp / "flwr" / "config.toml").write_text(connection)
        words = ["--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
        with open(temp / "superlink.log", "wb") as log:
            self._superlink = subprocess.Popen(
                [self._command("flower-superlink"), *words, "--log-file", str(temp / "flower.log")],
                cwd=temp / "neutral", env=self._env(), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while not _healthy(port):
            if self._superlink.poll() is not None or time.monotonic() > deadline:
                raise RunFailed(f"Flower's SuperLink did not start; {self._log_tail()}")
            time.sleep(0.2)

    def _env(self) -> dict[str, str]:
        temp = self.temp_dir
        own = {"FLWR_HOME": f"{temp}/flwr", "RAY_TMPDIR": temp, "FEDIMB_FLOWER_DIR": temp}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return os.environ | _ENV | own | {"PATH": path}

    def _command(self, name: str) -> str:
        beside = Path(sys.executable).parent / name
        found = str(beside) if beside.exists() else shutil.which(name)
        if found is None:
            raise RunFailed(f"{name} is not installed beside {sys.executable}: pip install 'fedimb[sim]'")
        return found

    def _flwr(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            [self._command("flwr"), *words], cwd=Path(self.temp_dir) / "neutral", env=self._env(),
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        start = done.stdout.find("{")
        if start < 0:
            raise RunFailed(f"flwr {words[0]} said: {(done.stdout + done.stderr).strip()[-400:]}")
        answer: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout[start:])[0]
        return answer

    def _status(self, run_id: str) -> str:
        runs = self._flwr("list", "fedimb", "--run-id", run_id, "--format", "json").get("runs", [])
        return str(runs[0].get("status", "")) if runs else ""

    def _log_tail(self) -> str:
        log = Path(self.temp_dir) / "superlink.log"
        return f"the end of its log: {log.read_text(errors='replace')[-800:]}" if log.exists() else "it left no log"

    @property
    def temp_dir(self) -> str:
        """Everything Flower and Ray write, and the mark of their processes. Short: AF_UNIX names hold 107 bytes."""
        if self._temp is None:
            self._temp = Path(tempfile.mkdtemp(prefix="fedimb-", dir="/tmp" if os.path.isdir("/tmp") else None))
        return str(self._temp)

    def processes(self) -> list[int]:
        """Ids of the SuperLink and of everything it started."""
        return processes.marked(str(self._temp)) if self._temp else []

    def close(self) -> None:
        """End the SuperLink and what it started. Safe to call twice."""
        if self._superlink is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._superlink.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._superlink.wait(timeout=10)
            processes.end(processes.record(self.processes()))
            self._superlink = None
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
    steps = {json.loads(line)["step"] for line in file.read_text().splitlines() if line} if file.exists() else set()
    return len(steps)
