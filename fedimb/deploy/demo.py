"""``fedimb deploy demo``: a coordinator and four hospitals on this machine, through the production code path.

Each step runs and prints the command that you would type on a real machine; only the addresses differ. The four
hospitals are those of the UCI heart-disease data.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedimb.errors import ConfigError, RunFailed

SITES = {
    "cleveland": "processed.cleveland.data",
    "hungary": "processed.hungarian.data",
    "switzerland": "processed.switzerland.data",
    "va": "processed.va.data",
}
STUDY = (
    *("data=heart_four", "data.test={name: none}", "data.validation=0.2", "partition=by_column", "clients.count=4"),
    *("model=logistic", "rounds=3", "local.epochs=2", "local.lr=0.05", "calibration=[none,la_post]"),
    *("engine=inline", "evaluation.bootstrap=200"),
)
"""The settings of the demo's study, as ``fedimb run`` takes them. A simulation of it ends with the same weights."""

_WAITING = 75
_ONLINE_S, _END_S = 120.0, 40.0


@dataclass
class Demo:
    """One demo in a new folder.

    Args:
        root: the folder for everything the demo writes; must not exist.
        data: the folder that contains heart-disease/.
        study: settings of the study, see `STUDY`.
        quiet: print nothing.
        times: seconds that the run took, under ``run``.
    """

    root: Path
    data: Path
    study: Sequence[str] = STUDY
    quiet: bool = False
    times: dict[str, float] = field(default_factory=dict)
    _running: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def coordinator(self) -> Path:
        """The deployment's folder."""
        return self.root / "coordinator"

    def home(self, site: str) -> Path:
        """A node's folder."""
        return self.root / site

    def run(self) -> Path:
        """Run the whole demo and return the run folder.

        Raises:
            RunFailed: a step failed, with its output.
        """
        self.root.mkdir(parents=True)
        try:
            self.create_deployment()
            with self.servers():
                plan = self.plan()
                self.start_nodes()
                folder = self.refused_until_approved(plan)
                self.approve(plan)
                started = time.monotonic()
                self.run_command("deploy", "run", "--resume", str(folder), "--deployment", str(self.coordinator))
                self.times["run"] = time.monotonic() - started
                for site in SITES:
                    self.run_command("node", "audit", "verify", "--home", str(self.home(site)))
            return folder
        finally:
            self.stop_all()

    def create_deployment(self) -> None:
        """Create the deployment and its nodes: certificates, keys, join files, registered data."""
        port, superlink = _free_ports(2)
        words = ("--host", "localhost", "--port", str(port), "--superlink-port", str(superlink))
        output = self.run_command("deploy", "init", "heart-demo", *words, "--to", str(self.coordinator))
        fingerprint = _fingerprint(output)
        for site, file in SITES.items():
            about = ("--host", "localhost", "--port", str(port), "--ca", str(self.coordinator / "ca.crt"))
            told = ("--fingerprint", fingerprint, "--contact", f"engineer of {site}")
            self.run_command("node", "init", site, *about, *told, "--to", str(self.home(site)))
            join = self.home(site) / f"{site}.join.json"
            self.run_command("deploy", "add-site", str(join), "--deployment", str(self.coordinator))
            rows = ("--name", "heart", "--tags", "heart", "--like", "heart_four.yaml", "--home", str(self.home(site)))
            self.run_command("node", "data", "add", str(self.data / "heart-disease" / file), *rows)

    @contextlib.contextmanager
    def servers(self) -> Iterator[None]:
        """Run SuperLink and nginx; at the end of the block, stop everything that was started."""
        self.start_command("deploy", "up", "--deployment", str(self.coordinator))
        try:
            self._wait("the servers", lambda: _healthy(self.coordinator))
            yield
        finally:
            self.stop_all()

    def plan(self) -> str:
        """Write the study plan and return its hash."""
        text = ("--purpose", "Heart disease at four hospitals: a demonstration", "--contact", "demo@example.org")
        rest = ("--expires", "2099-12-31", "--tags", "heart", "--vary", "seed", "--vary", "rounds=1..50")
        output = self.run_command("deploy", "plan", *self.study, *text, *rest, "--deployment", str(self.coordinator))
        return re.findall(r"[0-9a-f]{64}", output)[0]

    def start_nodes(self) -> None:
        """Start every site's node and wait until all are online."""
        for site in SITES:
            self.start_command("node", "run", "--home", str(self.home(site)))
        for site in SITES:
            self._wait(f"the node of {site}", lambda site=site: _state(self.home(site)) == "running")

    def refused_until_approved(self, plan: str) -> Path:
        """Submit the run. No site has approved the plan yet, so it ends with exit code 75 (waiting)."""
        self.run_command("deploy", "run", plan, "--deployment", str(self.coordinator), expect=_WAITING)
        (folder,) = (self.coordinator / "runs").glob("*/*/deployed.json")
        return folder.parent

    def approve(self, plan: str) -> None:
        """Approve the plan at every site."""
        for site in SITES:
            self.run_command("node", "inbox", "--home", str(self.home(site)))
            item = f"plan-{plan}"
            self.run_command("node", "approve", item, "--by", f"Dr. {site.title()}", "--home", str(self.home(site)))

    def run_command(self, *words: str, expect: int = 0) -> str:
        """Run one command to its end, printing it as you would type it. Returns its output.

        Raises:
            RunFailed: it ended with another exit code than expected.
        """
        self._show(words)
        done = subprocess.run(_command(words), capture_output=True, text=True, env=self._env(), cwd=self.root)
        output = done.stdout + done.stderr
        if not self.quiet:
            print("".join(f"    {line}\n" for line in output.strip().splitlines()), end="", flush=True)
        if done.returncode != expect:
            raise RunFailed(
                f"fedimb {words[0]} {words[1]} ended with {done.returncode}, not {expect}: {output[-3000:]}"
            )
        return output

    def start_command(self, *words: str) -> None:
        """Start a command in the background; its output goes to a log file in the demo's folder."""
        self._show([*words, "&"])
        name = "-".join([*words[:2], Path(words[-1]).name])
        with open(self.root / f"{name}.log", "wb") as log:
            started = subprocess.Popen(
                _command(words), stdout=log, stderr=log, env=self._env(), cwd=self.root, start_new_session=True
            )
        self._running.append(started)

    def stop_all(self) -> None:
        """Stop everything that was started, last first: nodes before the servers."""
        while self._running:
            process = self._running.pop()
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            with contextlib.suppress(
                ProcessLookupError
            ):  # each process has its own session, so this kills nothing else
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _env(self) -> dict[str, str]:
        return os.environ | {"FEDIMB_DATA_DIR": str(self.data), "OMP_NUM_THREADS": "1"}

    def _show(self, words: Sequence[str]) -> None:
        if not self.quiet:
            near = [word.replace(f"{self.root}/", "") for word in words]
            print(f"$ fedimb {' '.join(word if word == '&' else shlex.quote(word) for word in near)}", flush=True)

    def _wait(self, what: str, ready) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + _ONLINE_S
        while not ready():
            for process in self._running:
                if process.poll() is not None:
                    logs = "\n".join(path.read_text(errors="replace")[-1500:] for path in self.root.glob("*.log"))
                    raise RunFailed(f"{what} did not start: {logs}")
            if time.monotonic() > deadline:
                raise RunFailed(f"{what}: not ready after {_ONLINE_S:.0f} s; see the logs in {self.root}")
            time.sleep(0.3)


def check_data(data: str | None) -> Path:
    """The folder with the four hospitals' files. Raises ConfigError if they are missing."""
    folder = Path(data or os.environ.get("FEDIMB_DATA_DIR") or ".").expanduser().absolute()
    if missing := [name for name in SITES.values() if not (folder / "heart-disease" / name).is_file()]:
        raise ConfigError(
            f"{folder / 'heart-disease' / missing[0]} does not exist: put the UCI heart-disease data "
            "(processed.*.data of "
            "four hospitals) into a folder heart-disease and set FEDIMB_DATA_DIR to the folder that contains it"
        )
    return folder


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "fedimb", *words]


def _fingerprint(output: str) -> str:
    found = re.findall(r"\b(?:[0-9a-f]{4}[ :]?){16}\b", output)
    if not found:
        raise RunFailed(f"fedimb deploy init printed no fingerprint: {output}")
    return str(found[0]).strip()


def _healthy(root: Path) -> bool:
    from fedimb.deploy.coordinator.deployment import Deployment
    from fedimb.deploy.coordinator.superlink import healthy

    return healthy(Deployment.open(root))


def _state(home: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((home / "status.json").read_text())["state"])
    return ""


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
