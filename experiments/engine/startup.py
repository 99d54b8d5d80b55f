"""How long commands take to start, as ratios to the imports they cannot do without: ``python startup.py --to .``

Each bar is a command and what it is compared with. Both run in turn, in a new folder each time, after one unmeasured
run of each (which compiles modules, caches data and makes the template database); a bar is the median of the pairs'
ratios.
Needs a machine that does nothing else: processor seconds are written beside the times, to see whether it did.
Writes startup.csv (every pair) and startup.txt (the machine, medians, verdicts). Exit code 1 if a command failed.
"""

import argparse
import contextlib
import csv
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedimb.bench.cases import CASES
from fedimb.bench.measure import common_words
from fedimb.bench.process_tree import run_tree
from fedimb.bench.report import commit_of, cores, machine
from fedimb.engine import processes
from fedimb.process_env import QUIET, RAY

_TABLE = [*CASES["table"].words, "rounds=10"]
_FEDIMB = [sys.executable, "-m", "fedimb"]
_TORCH = [sys.executable, "-c", "import torch"]
_RAY = [
    sys.executable,
    "-c",
    f"import ray; ray.init(address='local', num_cpus={cores()}, include_dashboard=False, log_to_driver=False)",
]
_LONGEST_S = 600.0
_FIRST = "strategy"  # how the first line of the demo's first table starts
COLUMNS = ("bar", "pair", "base_s", "command_s", "ratio", "base_cpu_s", "command_cpu_s", "commit")


@dataclass(frozen=True)
class Bar:
    """A command, what it is compared with, and the largest ratio of their times.

    Attributes:
        about: in words.
        base, command: the calls.
        most: the limit.
        first_line: the command is timed to the line of its output that starts so, then interrupted; None: to its end.
    """

    about: str
    base: list[str]
    command: list[str]
    most: float
    first_line: str | None = None


def _bare_table() -> list[str]:
    words = [*_TABLE, *common_words(10, Path("runs"))]
    request = {"mode": "bare", "words": words, "workers": 1, "out": "found.json"}
    return [sys.executable, "-m", "fedimb.bench.one", json.dumps(request)]


BARS = {
    "digits": Bar("fedimb run / import torch", _TORCH, [*_FEDIMB, "run", "engine=inline"], 3.0),
    "untracked": Bar(
        "fedimb run tracking=none / import torch", _TORCH, [*_FEDIMB, "run", "engine=inline", "tracking=none"], 1.9
    ),
    "table": Bar(
        "fedimb run on the bench's table / the same by hand in torch, with its imports",
        _bare_table(),
        [*_FEDIMB, "run", "engine=inline", *_TABLE],
        4.0,
    ),
    "ray": Bar("fedimb run engine=ray / ray.init alone", _RAY, [*_FEDIMB, "run", "engine=ray"], 2.0),
    "demo": Bar("fedimb demo, first line of its first table / import torch", _TORCH, [*_FEDIMB, "demo"], 5.0, _FIRST),
}


def once(call: list[str], first_line: str | None) -> tuple[float, float]:
    """(seconds, processor seconds) of one run in a new folder.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    environment = QUIET | RAY | os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="fedimb-startup-", ignore_cleanup_errors=True) as temp:
        folder = Path(temp)
        if first_line is not None:
            return _to_line(call, first_line, environment, folder)
        ran = run_tree(call, folder / "log", environment, folder, _LONGEST_S)
        if ran.code:
            raise RuntimeError(f"{' '.join(call)}: exit code {ran.code}: {(folder / 'log').read_text()[-500:]}")
        return ran.whole_s, ran.cpu_s


def _to_line(call: list[str], first: str, environment: Mapping[str, str], folder: Path) -> tuple[float, float]:
    """Seconds to the line, and the processor seconds of the processes that live then; the command is then ended."""
    unbuffered = {**environment, "PYTHONUNBUFFERED": "1"}
    clock = time.perf_counter()
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=log, env=unbuffered, cwd=folder)
    assert process.stdout is not None
    try:
        text = b""
        while not any(line.startswith(first.encode()) for line in text.splitlines()):
            ready = select.select([process.stdout], [], [], max(0.0, _LONGEST_S - (time.perf_counter() - clock)))[0]
            more = os.read(process.stdout.fileno(), 65536) if ready else b""
            if not more:
                raise RuntimeError(f"{' '.join(call)}: no line '{first}': {(folder / 'log').read_text()[-500:]}")
            text += more
        seconds = time.perf_counter() - clock
        below = [process.pid, *processes.descendants(process.pid)]
        return seconds, sum(map(_cpu, below))
    finally:
        below = processes.record([process.pid, *processes.descendants(process.pid)])
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=60)
        processes.end(below)
        process.wait()


def _cpu(pid: int) -> float:
    """Processor seconds of a live process and of its ended children; 0 without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def measure(names: list[str], pairs: int, done: Callable[[list[dict[str, object]]], None]) -> list[str]:
    """Measure pairs in turn, the bars within a pair; ``done`` gets all lines after each. Returns what failed."""
    lines: list[dict[str, object]] = []
    failed: dict[str, str] = {}
    for pair in range(pairs + 1):  # 0 is not measured
        for name in [n for n in names if n not in failed]:
            bar = BARS[name]
            try:
                base, base_cpu = once(bar.base, None)
                command, command_cpu = once(bar.command, bar.first_line)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                failed[name] = f"{name}: {error}"
                continue
            print(
                f"{name}, pair {pair}: {command:.2f} / {base:.2f} = {command / base:.2f}", file=sys.stderr, flush=True
            )
            if pair:
                figures = (name, pair, base, command, command / base, base_cpu, command_cpu)
                lines.append(dict(zip(COLUMNS, figures, strict=False)))
                done(lines)
    return list(failed.values())


def write(lines: list[dict[str, object]], to: Path) -> None:
    """Write startup.csv and startup.txt."""
    commit = commit_of(Path(__file__).parent)
    with open(to / "startup.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for line in lines:
            numbers = {key: f"{value:.3f}" for key, value in line.items() if isinstance(value, float)}
            writer.writerow({**line, **numbers, "commit": commit})
    shown = [f"{'bar':10} {'pairs':>5} {'ratio':>6} {'least':>6} {'most':>6} {'limit':>6}  {'cpu ratio':>9}"]
    for name in dict.fromkeys(str(line["bar"]) for line in lines):
        own = [line for line in lines if line["bar"] == name]
        ratios = [float(str(line["ratio"])) for line in own]
        cpu = statistics.median(float(str(ln["command_cpu_s"])) / float(str(ln["base_cpu_s"])) for ln in own)
        median, bar = statistics.median(ratios), BARS[name]
        verdict = "pass" if median <= bar.most else "miss"
        numbers = f"{len(own):5} {median:6.2f} {min(ratios):6.2f} {max(ratios):6.2f} {bar.most:6.1f}  {cpu:9.2f}"
        shown.append(f"{name:10} {numbers}  {verdict}  {bar.about}")
    command = f"python experiments/engine/startup.py {' '.join(sys.argv[1:])}".strip()
    (to / "startup.txt").write_text("\n\n".join([machine(command), "\n".join(shown)]) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bars", nargs="*", metavar="BAR", help=f"of {', '.join(BARS)} (default: all)")
    parser.add_argument("--pairs", type=int, default=7, metavar="N", help="pairs per bar (default 7)")
    parser.add_argument("--to", type=Path, default=Path(__file__).resolve().parent, metavar="DIR")
    args = parser.parse_args()
    names = args.bars or list(BARS)
    if wrong := [name for name in names if name not in BARS]:
        parser.error(f"no bar '{wrong[0]}': {', '.join(BARS)}")
    if args.pairs < 1:
        parser.error("--pairs: give at least 1")
    args.to.mkdir(parents=True, exist_ok=True)
    failed = measure(names, args.pairs, lambda lines: write(lines, args.to))
    if (args.to / "startup.txt").exists():
        print((args.to / "startup.txt").read_text())
    for reason in failed:
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
