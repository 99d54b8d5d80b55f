"""flower: the same app through ``flwr run``, with a private SuperLink that this launcher starts and ends.

For parity and benchmarks. Every switch that decides whether Flower behaves (its home, port, telemetry, dependency
installation, working directory, Ray's address) is set here. How a run ended is read from its run folder: ``flwr run``
itself answers 0 when a run fails.
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
_ASK_FLOWER_EVERY_S = 60.0  # the command starts a Python of its own, which costs seconds


class Place(TypedDict):
    """Where and how a process of Flower's runs, as `subprocess` takes it."""

    cwd: Path
    env: dict[str, str]
    start_new_session: bool


class FlowerLauncher:
    """Starts a SuperLink in simulation mode on first use; each run is one ``flwr run``.

    Args:
        workers: Ray actors of a run; None: one per core.
    """

    def __init__(self, workers: int | None = None) -> None:
        # Flower gives Ray 30 seconds to start, once; here it may need longer, and is tried again.
        self._ray, self._address = RayEngine(workers), ""
        self._temp: Path | None = None
        self._home = Path()  # Flower's folder in it, once started
        self._superlink: subprocess.Popen[bytes] | None = None

    def grid(self, job: Job) -> SimulationGrid:
        """There is none in this process: see `run_elsewhere`."""
        raise RunFailed("engine=flower runs the whole loop in a Flower ServerApp")

    def run_elsewhere(self, job: Job, advance: Callable[[int], None]) -> None:
        """Submit the run and return when Flower is done with it; ``advance(n)`` as n more rounds are done.

        Raises:
            RunFailed: Flower could not start it, or ended it without a word in the run folder.
        """
        self.start()
        folder, done, flower, asked = RunFolder(Path(job.run_dir)), 0, "", time.monotonic()
        folder.set_status("running")  # what an earlier attempt left there must not pass for this one's end
        (self._home / "run.toml").write_text(f"run-dir = {json.dumps(job.run_dir, ensure_ascii=False)}\n")
        nodes = f"num-supernodes={job.n_clients} client-resources-num-cpus=1"
        words = ["--run-config", str(self._home / "run.toml"), "--federation-config", nodes]
        run_id = str(self._flwr("run", str(BUNDLE.parent), "fedimb", *words)["run-id"])
        while not flower.startswith("finished"):
            time.sleep(0.5)
            rounds = len({line["step"] for line in folder.metrics()})  # several rows log the same step
            advance(rounds - done)
            done = rounds
            # An ended run still tells MLflow, and Flower still has to let go of Ray: it is asked again until it has.
            if folder.status() != "running" or time.monotonic() - asked > _ASK_FLOWER_EVERY_S:
                (run,) = self._flwr("list", "fedimb", "--run-id", run_id)["runs"]
                flower, asked = str(run["status"]), time.monotonic()
        if folder.status() == "running":
            raise RunFailed(f"Flower ended the run without fedimb's doing: {run}; {self._log_tail()}")

    def start(self) -> None:
        """Start the SuperLink; does nothing when it runs. Raises RunFailed when it does not come up."""
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
        # On this machine alone: whoever reaches a SuperLink can have it run anything.
        words = ["--host", "127.0.0.1", "--port", str(port), "--insecure", "--simulation", "--log-file", f"{home}/log"]
        with open(home / "superlink.log", "wb") as log:
            self._superlink = subprocess.Popen(["flower-superlink", *words], stdout=log, stderr=log, **self._place())
        deadline = time.monotonic() + _START_S
        while not _healthy(port):
            if self._superlink.poll() is not None or time.monotonic() > deadline:
                raise RunFailed(f"Flower's SuperLink did not start; {self._log_tail()}")
            time.sleep(0.2)

    def _place(self) -> Place:
        """Where and how every Flower process runs: its commands stand beside this Python, Ctrl-C is for this one."""
        own = {"FLWR_HOME": str(self._home / "flwr"), "RAY_ADDRESS": self._address, "FEDIMB_FLOWER_DIR": self.temp_dir}
        own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {
            "cwd": self._home / "neutral",
            "env": QUIET | RAY | os.environ | _SWITCHES | own,
            "start_new_session": True,
        }

    def _flwr(self, *words: str) -> JsonObject:
        """What ``flwr`` answers, read from its JSON; other text may stand before that."""
        call = ["flwr", *words, "--format", "json"]
        done = subprocess.run(call, capture_output=True, text=True, timeout=300, **self._place())
        with contextlib.suppress(ValueError):
            answer: JsonObject = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("{"))[0]
            if answer.get("success", True):
                return answer
        raise RunFailed(f"flwr {words[0]} said: {(done.stdout + done.stderr).strip()[-600:]}")

    def _log_tail(self) -> str:
        return f"the end of its log: {(self._home / 'superlink.log').read_text(errors='replace')[-1500:]}"

    @property
    def temp_dir(self) -> str:
        """The private Ray's folder, short and unique: the mark of Ray's processes and of Flower's."""
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
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
        return bool(answer.status == 200)
    return False
