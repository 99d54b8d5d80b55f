"""Three SuperLinks, six nodes, two ``fedimb region run`` on loopback, killed at random: the weights of the flat run."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from behind_nginx import NGINX
from deployed import small_study, weights
from loopback import Loopback
from region_trees import SITES, Tree, make_tree

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.coordinator.superlink import healthy
from fedimb.deploy.site.approvals import receive_plan
from fedimb.deploy.site.guard import LAST_MESSAGE
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(5400),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]

ROUNDS = int(os.environ.get("FEDIMB_TEST_REGION_ROUNDS", "5"))
KILLS = int(os.environ.get("FEDIMB_TEST_REGION_KILLS", "4"))
SECONDS = 3600.0
"""How long the whole run may take, on a machine that is busy."""


class Processes:
    """Commands of the tree, each of which is started again when it is killed, as systemd would.

    Args:
        to: folder for their output.
    """

    def __init__(self, to: Path) -> None:
        self._to, self._words, self._running = to, dict[str, list[str]](), dict[str, subprocess.Popen]()

    def start(self, name: str, *words: str) -> None:
        """Start a command under a name."""
        self._words[name] = [sys.executable, "-m", "fedimb", *words]
        self._again(name)

    def _again(self, name: str) -> None:
        with open(self._to / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(
                self._words[name], stdout=log, stderr=log, cwd=self._to, process_group=0
            )

    def kill(self, name: str) -> None:
        """Kill -9 a command and what it started, and start it again."""
        with contextlib.suppress(ProcessLookupError):  # each has its own group
            os.killpg(self._running[name].pid, signal.SIGKILL)
        self._running[name].wait()
        self._again(name)

    def stop(self) -> None:
        """End all, last first."""
        for name in reversed(list(self._running)):
            process = self._running.pop(name)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(what: str, true: Callable[[], bool], seconds: float = 900) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def running(home: Path) -> bool:
    """Whether a node is online."""
    with contextlib.suppress(OSError, ValueError):
        told = json.loads((home / "status.json").read_text())
        return bool(told.get("connected")) and told.get("state") == "running"
    return False


@pytest.fixture
def up(tmp_path: Path) -> Iterator[tuple[Tree, Processes]]:
    tree, found = make_tree(tmp_path), Processes(tmp_path)
    tree.approve()
    try:
        deployments = {"root": tree.root} | {name: region.deployment for name, region in tree.regions.items()}
        for name, deployment in deployments.items():
            found.start(f"{name}-up", "deploy", "up", "--deployment", str(deployment.root))
        for name, deployment in deployments.items():
            until(f"the servers of {name}", lambda one=deployment: healthy(one))
        for name, region in tree.regions.items():
            own = ["--node", str(region.node.root), "--deployment", str(region.deployment.root)]
            found.start(f"{name}-region", "region", "run", *own, "--join", "900", "--away", "900")
            for home in (region.node, *region.sites.values()):
                found.start(f"{home.site}-node", "node", "run", "--home", str(home.root), "--restart-after", "1")
        for region in tree.regions.values():
            for home in (region.node, *region.sites.values()):
                until(f"the node of {home.site}", lambda one=home: running(one.root))
        yield tree, found
    finally:
        found.stop()


def serving(deployment: Deployment) -> int | None:
    """Id of the ServerApp that works in a deployment."""
    for path in deployment.root.glob("runs/*/*/processes.json"):
        with contextlib.suppress(OSError, ValueError):
            return int(next(iter(json.loads(path.read_text())["driver"])))
    return None


def kill_app(deployment: Deployment) -> None:
    """Kill -9 a deployment's ServerApp."""
    if (pid := serving(deployment)) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def flat(to: Path) -> RunResult:
    """The same four sites under one coordinator, in this process."""
    to.mkdir()
    study = small_study(to, {site: rows for own in SITES.values() for site, rows in own.items()}, "tracking=none")
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    folder = study.new("seed=4", f"rounds={ROUNDS}")
    serve(folder.path, Loopback(study.homes.values()))
    return RunResult.read(folder.path)


def test_killed_at_random_the_weights_are_those_of_the_flat_run(up: tuple[Tree, Processes], tmp_path: Path) -> None:
    tree, processes = up
    expected = weights(flat(tmp_path / "flat"))
    folder, chance = tree.new("seed=4", f"rounds={ROUNDS}", join_s=1500, away_s=1500), random.Random(7)
    victims: dict[str, Callable[[], None]] = {
        name: lambda one=name: processes.kill(one) for name in processes._running if not name.endswith("-up")
    }
    victims |= {"app of the root": lambda: kill_app(tree.root)}
    victims |= {f"app of {name}": lambda one=region.deployment: kill_app(one) for name, region in tree.regions.items()}
    plan = sorted(chance.sample(range(1, ROUNDS + 1), min(KILLS, ROUNDS)))
    kills = {number: (chance.choice(sorted(victims)), 3 * chance.random()) for number in plan}
    done, deadline = [], time.monotonic() + SECONDS
    while folder.status() != "finished":
        words = ["deploy", "run", "--resume", str(folder.path), "--deployment", str(tree.root.root)]
        with open(tmp_path / "root-run.log", "ab") as log:
            root = subprocess.Popen([sys.executable, "-m", "fedimb", *words], stdout=log, stderr=log, cwd=tmp_path)
            while root.poll() is None:
                assert time.monotonic() < deadline, (done, (tmp_path / "root-run.log").read_text()[-3000:])
                number = next((n for n in kills if n not in done and asked(tree, n)), None)
                if number is not None:
                    who, delay = kills[number]
                    time.sleep(delay)
                    victims[who]()
                    done.append(number)
                time.sleep(0.2)
        assert time.monotonic() < deadline, (done, (tmp_path / "root-run.log").read_text()[-3000:])
    print(f"killed: {kills}")
    assert sorted(done) == sorted(kills)
    mine = weights(RunResult.read(folder.path))
    assert {name for name, value in mine.items() if value.tobytes() != expected[name].tobytes()} == set()
    check_nothing_of_a_site(folder)


def asked(tree: Tree, number: int) -> bool:
    """Whether any site has begun with a round."""
    for region in tree.regions.values():
        for home in region.sites.values():
            with contextlib.suppress(OSError, ValueError):
                told = json.loads(home.file(*LAST_MESSAGE).read_text())
                if told.get("type") == "train" and int(told.get("round") or 0) >= number:
                    return True
    return False


def check_nothing_of_a_site(folder: RunFolder) -> None:
    """No file of the root's run names a site."""
    sites = [site for own in SITES.values() for site in own]
    for path in folder.path.rglob("*.jsonl"):
        text = path.read_text()
        assert [site for site in sites if f'"{site}"' in text] == [], path
