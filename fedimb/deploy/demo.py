"""``fedimb deploy demo``: a coordinator and four hospitals on this machine, on the production path, start to finish.

Each step is the command that would be typed on a real machine, run as such and printed; only addresses differ. The
four hospitals are those of the UCI heart-disease data.
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
"""The study of the demo, as ``fedimb run`` takes it; simulated, it ends with the same weights."""

_WAITING = 75
_ONLINE_S, _END_S = 120.0, 40.0


@dataclass
class Demo:
    """One demo in a new folder.

    Args:
        root: where everything goes; must not exist.
        data: the folder with heart-disease/.
        study: the study, see `STUDY`.
        say: prints a line.
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
        """The whole demo; returns the run folder.

        Raises:
            RunFailed: a step failed, with what it said.
        """
        self.root.mkdir(parents=True)
        try:
            self.found()
            with self.servers():
                plan = self.plan()
                self.start_nodes()
                folder = self.refused_until_approved(plan)
                self.approve(plan)
                started = time.monotonic()
                self.do("deploy", "run", "--resume", str(folder), "--deployment", str(self.coordinator))
                self.times["run"] = time.monotonic() - started
                for site in SITES:
                    self.do("node", "audit", "verify", "--home", str(self.home(site)))
            return folder
        finally:
            self.end()

    def found(self) -> None:
        """Certificates, keys, join files, registered data."""
        port, superlink = _free_ports(2)
        words = ("--host", "localhost", "--port", str(port), "--superlink-port", str(superlink))
        said = self.do("deploy", "init", "heart-demo", *words, "--to", str(self.coordinator))
        fingerprint = _fingerprint(said)
        like = Path(__file__).parents[1] / "configs" / "data" / "heart_four.yaml"
        for site, file in SITES.items():
            about = ("--host", "localhost", "--port", str(port), "--ca", str(self.coordinator / "ca.crt"))
            told = ("--fingerprint", fingerprint, "--contact", f"engineer of {site}")
            self.do("node", "init", site, *about, *told, "--to", str(self.home(site)))
            join = self.home(site) / f"{site}.join.json"
            self.do("deploy", "add-site", str(join), "--deployment", str(self.coordinator))
            rows = ("--name", "heart", "--tags", "heart", "--like", str(like), "--home", str(self.home(site)))
            self.do("node", "data", "add", str(self.data / "heart-disease" / file), *rows)

    @contextlib.contextmanager
    def servers(self) -> Iterator[None]:
        """SuperLink and nginx, and at the end of the block everything that was started."""
        self.start("deploy", "up", "--deployment", str(self.coordinator))
        try:
            self._wait("the servers", lambda: _healthy(self.coordinator))
            yield
        finally:
            self.end()

    def plan(self) -> str:
        """The study plan's hash."""
        text = ("--purpose", "Heart disease at four hospitals: a demonstration", "--contact", "demo@example.org")
        rest = ("--expires", "2099-12-31", "--tags", "heart", "--vary", "seed", "--vary", "rounds=1..50")
        said = self.do("deploy", "plan", *self.study, *text, *rest, "--deployment", str(self.coordinator))
        return re.findall(r"[0-9a-f]{64}", said)[0]

    def start_nodes(self) -> None:
        """Every site's node, and wait until they are online."""
        for site in SITES:
            self.start("node", "run", "--home", str(self.home(site)))
        for site in SITES:
            self._wait(f"the node of {site}", lambda site=site: _state(self.home(site)) == "running")

    def refused_until_approved(self, plan: str) -> Path:
        """Submit: nobody has agreed yet, so the run ends as waiting."""
        self.do("deploy", "run", plan[:8], "--deployment", str(self.coordinator), expect=_WAITING)
        (folder,) = (self.coordinator / "runs").glob("*/*/deployed.json")
        return folder.parent

    def approve(self, plan: str) -> None:
        """Every site says yes."""
        for site in SITES:
            self.do("node", "inbox", "--home", str(self.home(site)))
            item = f"plan-{plan[:8]}"
            self.do("node", "approve", item, "--by", f"Dr. {site.title()}", "--home", str(self.home(site)))

    def do(self, *words: str, expect: int = 0) -> str:
        """Run one command to its end, printed as it would be typed; returns what it printed.

        Raises:
            RunFailed: it ended otherwise than expected.
        """
        self._show(words)
        done = subprocess.run(_command(words), capture_output=True, text=True, env=self._env(), cwd=self.root)
        said = done.stdout + done.stderr
        if not self.quiet:
            print("".join(f"    {line}\n" for line in said.strip().splitlines()), end="", flush=True)
        if done.returncode != expect:
            raise RunFailed(f"fedimb {words[0]} {words[1]} ended with {done.returncode}, not {expect}: {said[-3000:]}")
        return said

    def start(self, *words: str) -> None:
        """Start a command that stays; its output goes to a file in the demo's folder."""
        self._show([*words, "&"])
        name = "-".join([*words[:2], Path(words[-1]).name])
        with open(self.root / f"{name}.log", "wb") as log:
            started = subprocess.Popen(
                _command(words), stdout=log, stderr=log, env=self._env(), cwd=self.root, start_new_session=True
            )
        self._running.append(started)

    def end(self) -> None:
        """End what was started, last first: nodes before the servers."""
        while self._running:
            process = self._running.pop()
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            with contextlib.suppress(ProcessLookupError):  # each has a session of its own: nobody else is in it
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
                raise RunFailed(f"{what}: not there after {_ONLINE_S:.0f} s; see the logs in {self.root}")
            time.sleep(0.3)


def check_data(data: str | None) -> Path:
    """The folder with the four hospitals' files. ConfigError where they are not."""
    folder = Path(data or os.environ.get("FEDIMB_DATA_DIR") or ".").expanduser().absolute()
    if missing := [name for name in SITES.values() if not (folder / "heart-disease" / name).is_file()]:
        raise ConfigError(
            f"there is no {folder / 'heart-disease' / missing[0]}: get the UCI heart-disease data (processed.*.data of "
            "four hospitals) into a folder heart-disease and set FEDIMB_DATA_DIR to the folder above"
        )
    return folder


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "fedimb", *words]


def _fingerprint(said: str) -> str:
    found = re.findall(r"\b(?:[0-9a-f]{4}[ :]?){16}\b", said)
    if not found:
        raise RunFailed(f"fedimb deploy init printed no fingerprint: {said}")
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
