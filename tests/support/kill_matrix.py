"""Kills runs with SIGKILL at random moments, resumes them, and compares with runs that were left alone.

    make kill-matrix                                  all points that the CSV does not have yet
    python tests/support/kill_matrix.py inline 10     the next ten of one engine

The points are drawn by seed: which method, which process, and after which share of an uninterrupted run's time. Each
line of the CSV is written when its point is done, so an interrupted matrix continues where it ended.
"""

import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import fedimb.clientapp.app
import fedimb.serverapp.launch  # noqa: F401
from fedimb.engine import processes
from fedimb.rundir.folder import RunFolder

TABLE = Path(__file__).parents[1] / "kill_matrix.csv"
POINTS = {"inline": 60, "ray": 12, "deployed": 6}
METHODS = {
    "scope": ("strategy=scope", "strategy.scope.warmup=2", "rounds=8"),
    "fairfal": ("strategy=fairfal", "strategy.fairfal.cycles=2", "rounds=6"),
    "scaffold": ("aggregator=scaffold", "rounds=10"),
}
BASE = ("tracking=none", "clients.count=4", "data.n_max=100", "local.epochs=1", "evaluation.bootstrap=50")
_LIMIT_S = 600.0


@dataclass(frozen=True)
class Point:
    """One kill, and how it ended.

    Attributes:
        engine, number, method: which.
        kills: ``driver``, ``worker``, ``server app`` or ``node``.
        share: when, as a share of an uninterrupted run's time from the first round on.
        rounds: done when it was killed; -1: none was logged.
        again: exit code of the resume (0 too where the run survived the kill by itself).
        weights, rows: whether they are those of the uninterrupted run.
    """

    engine: str
    number: int
    method: str
    kills: str
    share: float
    rounds: int = -1
    again: int = -1
    weights: bool = False
    rows: bool = False

    @property
    def fine(self) -> bool:
        """Whether nothing was lost."""
        return self.again == 0 and self.weights and self.rows


def points(engine: str) -> list[Point]:
    """All points of an engine, drawn by seed."""
    rng = random.Random(f"kill matrix {engine}")
    kills = {"inline": ("driver",), "ray": ("driver", "driver", "worker"), "deployed": ("server app", "node")}[engine]
    return [
        Point(engine, n, list(METHODS)[n % 3], kills[n // 3 % len(kills)], round(rng.uniform(0.0, 0.97), 3))
        for n in range(POINTS[engine])
    ]


def read_table(table: Path = TABLE) -> list[Point]:
    """The points that were done."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return [
            Point(
                o["engine"],
                int(o["number"]),
                o["method"],
                o["kills"],
                float(o["share"]),
                int(o["rounds"]),
                int(o["again"]),
                o["weights"] == "True",
                o["rows"] == "True",
            )
            for o in csv.DictReader(file)
        ]


def append(point: Point, table: Path = TABLE) -> None:
    """Add a line to the CSV."""
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(asdict(point))


def outcome(folder: Path) -> tuple[bytes, list]:
    """What a kill must not change: weights, and metric lines without times."""
    lines = RunFolder(folder).metrics()
    rows = [(o["row"], o["step"], {k: v for k, v in o["metrics"].items() if "time/" not in k}) for o in lines]
    return (folder / "artifacts" / "model" / "model.safetensors").read_bytes(), json.loads(json.dumps(rows))


def rounds_of(folder: Path) -> int:
    """The last round of the metric lines."""
    try:
        return max((int(line["step"]) for line in RunFolder(folder).metrics()), default=-1)
    except Exception:  # a torn or sealed state is what the resume has to cope with
        return -1


class Simulated:
    """Kills of ``engine=inline`` and ``engine=ray``: every run is a process of its own.

    Args:
        engine: which.
        root: folder for the runs.
    """

    def __init__(self, engine: str, root: Path) -> None:
        self.engine, self.root = engine, root
        self._whole: dict[str, tuple[tuple[bytes, list], float, float]] = {}

    def _start(self, cwd: Path, *words: str) -> "subprocess.Popen[bytes] | Fork":
        cwd.mkdir(parents=True, exist_ok=True)
        if self.engine == "inline":
            return Fork(cwd, ["run", *words])
        with (cwd / "log").open("ab") as log:
            code = [sys.executable, "-m", "fedimb", "run", *words]
            return subprocess.Popen(code, cwd=cwd, stdout=log, stderr=log, start_new_session=True)

    def _words(self, method: str) -> tuple[str, ...]:
        workers = ("engine.workers=2",) if self.engine == "ray" else ()
        return (*BASE, *METHODS[method], f"engine={self.engine}", *workers)

    def whole(self, method: str) -> tuple[tuple[bytes, list], float, float]:
        """(outcome, seconds until the run folder is there, seconds from then on) of an uninterrupted run."""
        if method not in self._whole:
            cwd, started = self.root / f"whole-{method}", time.monotonic()
            process = self._start(cwd, *self._words(method))
            folder = self._folder(cwd, process)
            there = time.monotonic()
            assert process.wait(_LIMIT_S) == 0, (cwd / "log").read_text()
            self._whole[method] = outcome(folder), there - started, time.monotonic() - there
        return self._whole[method]

    def _folder(self, cwd: Path, process: "subprocess.Popen[bytes] | Fork") -> Path:
        """The run folder, as soon as it is there."""
        while process.poll() is None:
            if found := list((cwd / "runs" / "default").glob("*/config.json")):
                return found[0].parent
            time.sleep(0.01)
        raise AssertionError((cwd / "log").read_text())

    def do(self, point: Point) -> Point:
        """Kill a run, resume it, compare. If it ended before the kill, it is killed earlier."""
        whole, _, seconds = self.whole(point.method)
        cwd, share = self.root / f"{point.engine}-{point.number}", point.share
        while True:
            process = self._start(cwd, *self._words(point.method))
            folder = self._folder(cwd, process)
            time.sleep(share * seconds)
            rounds, ended = rounds_of(folder), process.poll() is not None
            if not ended:
                break
            share = round(0.7 * share, 3)
            shutil.rmtree(cwd)
        if point.kills == "worker":
            self._kill_worker(folder, random.Random(point.number))
            code = process.wait(_LIMIT_S)
        else:
            process.kill()
            code = process.wait(60)
        if code != 0:
            code = self._start(cwd, "--resume", str(folder)).wait(_LIMIT_S)
        same = outcome(folder) if code == 0 else (b"", [])
        if code != 0:
            print((cwd / "log").read_text()[-2000:], flush=True)
        shutil.rmtree(cwd, ignore_errors=True)
        done = {"share": share, "rounds": rounds, "again": code}
        return Point(**asdict(point) | done | {"weights": same[0] == whole[0], "rows": same[1] == whole[1]})

    @staticmethod
    def _kill_worker(folder: Path, rng: random.Random) -> None:
        """SIGKILL to one of the run's Ray actors, once there is one."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            temp = RunFolder(folder).read_json("processes.json", {}).get("temp_dir")
            actors = [pid for pid in (processes.marked(temp) if temp else []) if b"ray::" in _command(pid)]
            if actors:
                os.kill(rng.choice(sorted(actors)), signal.SIGKILL)
                return
            time.sleep(0.1)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Fork:
    """``fedimb`` in a fork of this process, which has imported it already: as `subprocess.Popen`, without the wait.

    Args:
        cwd: its working folder, which gets its output.
        words: of the command line.
    """

    def __init__(self, cwd: Path, words: list[str]) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=_main, args=(cwd, words))
        self._process.start()

    @property
    def pid(self) -> int:
        """Its id."""
        return int(self._process.pid or 0)

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float) -> int:
        """Its exit code, when it has ended."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"not done after {seconds:.0f} s"
        return self._process.exitcode

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()


def _main(cwd: Path, words: list[str]) -> None:
    from fedimb.cli import main

    os.chdir(cwd)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    with os.fdopen(1, "w", closefd=False) as sys.stdout, os.fdopen(2, "w", closefd=False) as sys.stderr:
        code = main(words)
    os._exit(code)


class Deployed:
    """Kills of a deployment: the process at the coordinator, or a site's node. Needs nginx.

    Args:
        root: folder for the deployments, one per method.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def all(self, wanted: list[Point]) -> Iterator[Point]:
        """The points, method by method."""
        from deployed import here, small_study

        from fedimb.deploy.coordinator.servers import Servers
        from fedimb.errors import FedimbError

        for method in dict.fromkeys(point.method for point in wanted):
            place = self.root / method
            place.mkdir(parents=True)
            more = ("strategy.fairfal.budget=5",) if method == "fairfal" else ()
            words = ("tracking=none", *METHODS[method], *more)
            study = small_study(place, {"linz": 60, "st-anna": 90}, *words, most_rounds=10)
            with Servers(study.deployment, here()), study.nodes():
                try:
                    study.execute(study.new())
                except FedimbError:
                    study.approve()
                started = time.monotonic()
                whole = outcome(study.execute(study.new()).folder)
                seconds = time.monotonic() - started
                for point in (one for one in wanted if one.method == method):
                    yield self._do(study, point, whole, seconds)

    def _do(self, study, point: Point, whole: tuple[bytes, list], seconds: float) -> Point:  # type: ignore[no-untyped-def]
        from deployed import in_background

        folder = study.new()
        thread, said = in_background(lambda: study.execute(folder))
        time.sleep(point.share * seconds)
        rounds = rounds_of(folder.path)
        if point.kills == "node":
            os.kill(int(study.status("linz")["node"]), signal.SIGKILL)
        else:
            while thread.is_alive() and not (driver := folder.read_json("processes.json", {}).get("driver")):
                time.sleep(0.05)
            if thread.is_alive():
                os.kill(int(next(iter(driver))), signal.SIGKILL)
        thread.join(_LIMIT_S)
        try:
            if isinstance(said[0], Exception):
                study.execute(folder)
            code, same = 0, outcome(folder.path)
        except Exception as error:
            print(f"  {error}", flush=True)
            code, same = 1, (b"", [])
        return Point(**asdict(point) | {"rounds": rounds, "again": code, "weights": same[0] == whole[0]}
                     | {"rows": same[1] == whole[1]})  # fmt: skip


def run(engine: str, wanted: list[Point], root: Path) -> Iterator[Point]:
    """Do points of one engine."""
    if engine == "deployed":
        yield from Deployed(root).all(wanted)
        return
    matrix = Simulated(engine, root)
    for point in wanted:
        yield matrix.do(point)


def main(words: list[str]) -> int:
    """Do what is missing in the CSV. Returns 1 if a point was not fine."""
    engines = [word for word in words if word in POINTS] or list(POINTS)
    most = next((int(word) for word in words if word.isdigit()), 10**6)
    for engine in engines:
        done = {point.number for point in read_table() if point.engine == engine}
        wanted = [point for point in points(engine) if point.number not in done][:most]
        with tempfile.TemporaryDirectory(prefix="kill-matrix-") as root:
            for point in run(engine, wanted, Path(root)):
                append(point)
                print("fine" if point.fine else "LOST", point, flush=True)
    table = read_table()
    bad = [point for point in table if not point.fine]
    counts = {engine: sum(point.engine == engine for point in table) for engine in POINTS}
    print(", ".join(f"{engine} {n} of {POINTS[engine]}" for engine, n in counts.items()), f"; {len(bad)} not fine")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
