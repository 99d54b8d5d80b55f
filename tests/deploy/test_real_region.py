"""Trees of real processes on loopback: the weights of the flat run, undisturbed and killed at random.

The whole tree has three SuperLinks, six nodes and two ``fedimb region run``. Kills are tried on half of it, one region
of two sites, because each process costs seconds of a core when it starts. ``FEDIMB_TEST_REGION_ROUNDS`` and ``_KILLS``
make that longer, ``_SEED`` chooses other victims and moments; what each round took is printed (``pytest -s``).
"""

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
from region_trees import SITES, Tree, differing, flat, make_tree

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.superlink import healthy
from fedimb.deploy.site.guard import LAST_MESSAGE
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(5400),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]

ROUNDS = int(os.environ.get("FEDIMB_TEST_REGION_ROUNDS", "3"))
KILLS = int(os.environ.get("FEDIMB_TEST_REGION_KILLS", "2"))
SEED = int(os.environ.get("FEDIMB_TEST_REGION_SEED", "7"))
SECONDS = 3600.0
"""How long the whole run may take, on a machine that is busy."""
ONE = {"nord": SITES["nord"]}


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

    def names(self) -> list[str]:
        """Of all commands."""
        return list(self._running)

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


@contextlib.contextmanager
def up(tmp_path: Path, sites: dict[str, dict[str, int]]) -> Iterator[tuple[Tree, Processes]]:
    """A tree whose processes run."""
    began, tree, found = time.monotonic(), make_tree(tmp_path, sites=sites), Processes(tmp_path)
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
        print(f"all processes up: {time.monotonic() - began:.0f} s", flush=True)
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


class Kills:
    """Kills at random moments of random rounds.

    Args:
        tree, processes: whose processes are killed: nodes, ``region run``, ServerApps of the root and the regions.
        rounds, count: of the run; of the kills.
    """

    def __init__(self, tree: Tree, processes: Processes, rounds: int, count: int) -> None:
        chance = random.Random(SEED)
        self._tree = tree
        self._victims: dict[str, Callable[[], None]] = {
            name: lambda one=name: processes.kill(one) for name in processes.names() if not name.endswith("-up")
        }
        self._victims["app of the root"] = lambda: kill_app(tree.root)
        for name, region in tree.regions.items():
            self._victims[f"app of {name}"] = lambda one=region.deployment: kill_app(one)
        numbers = sorted(chance.sample(range(1, rounds + 1), min(count, rounds)))
        self.planned = {number: (chance.choice(sorted(self._victims)), 3 * chance.random()) for number in numbers}
        self.began: dict[int, float] = {}

    def look(self) -> None:
        """Kill who is to be killed in the round that has begun."""
        number = len(self.began) + 1
        if not asked(self._tree, number):
            return
        self.began[number] = time.monotonic()
        print(f"round {number} after {self.began[number] - self.began[1]:.0f} s", flush=True)
        if number in self.planned:
            who, delay = self.planned[number]
            time.sleep(delay)
            self._victims[who]()
            print(f"killed: {who}", flush=True)

    def cost(self) -> str:
        """Seconds of the rounds, the last with the final scores, and whether there was a kill in them."""
        ends = [*self.began.values(), time.monotonic()]
        return ", ".join(
            f"round {number} {ends[number] - began:.0f} s{' with a kill' * (number in self.planned)}"
            for number, began in self.began.items()
        )


def same_as_flat(to: Path, tree: Tree, processes: Processes, rounds: int, count: int) -> None:
    """Run the tree to its end, killed so many times: its weights are those of its sites without regions."""
    rows = {name: {site: SITES[name][site] for site in region.sites} for name, region in tree.regions.items()}
    expected = flat(to / "flat", "seed=4", f"rounds={rounds}", sites=rows)
    folder = tree.new("seed=4", f"rounds={rounds}", join_s=1500, away_s=1500)
    kills, deadline = Kills(tree, processes, rounds, count), time.monotonic() + SECONDS
    log = to / "root-run.log"
    while folder.status() != "finished":
        words = ["deploy", "run", "--resume", str(folder.path), "--deployment", str(tree.root.root)]
        with open(log, "ab") as file:
            root = subprocess.Popen([sys.executable, "-m", "fedimb", *words], stdout=file, stderr=file, cwd=to)
            try:
                while root.poll() is None:
                    assert time.monotonic() < deadline, (kills.began, log.read_text()[-3000:])
                    kills.look()
                    time.sleep(0.2)
            finally:
                root.kill()
                root.wait()
        assert time.monotonic() < deadline, (kills.began, log.read_text()[-3000:])
    print(kills.cost(), flush=True)
    assert sorted(kills.began) == list(range(1, rounds + 1))
    assert differing(RunResult.read(folder.path), expected) == set()
    check_nothing_of_a_site(folder)


def test_a_tree_of_processes_has_the_weights_of_the_flat_run(tmp_path: Path) -> None:
    with up(tmp_path, SITES) as (tree, processes):
        same_as_flat(tmp_path, tree, processes, rounds=1, count=0)


def test_killed_at_random_the_weights_are_those_of_the_flat_run(tmp_path: Path) -> None:
    with up(tmp_path, ONE) as (tree, processes):
        same_as_flat(tmp_path, tree, processes, ROUNDS, KILLS)


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
