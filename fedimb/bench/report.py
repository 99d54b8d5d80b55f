"""Writes the results of a benchmark: a CSV of all measurements, and a text with machine, times and verdicts."""

import csv
import math
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fedimb.bench.bars import Bar
from fedimb.bench.measurement import Figures, Measurement

COLUMNS = (
    ("start_s", 3),
    ("round_s", 4),
    ("rows_per_s", 0),
    ("whole_s", 3),
    ("peak_mb", 1),
    ("others_mb", 1),
    ("macro_recall", 4),
    ("before_mb", 1),
    ("after_mb", 1),
    ("mapped_mb", 1),
    ("gap_s", 3),
    ("same_workers", 0),
)
"""Fields of a measurement in the CSV, and their decimals; NaN becomes an empty cell."""


def write_csv(measured: Sequence[Measurement], path: Path) -> None:
    """Write one line per measurement; ``rounds_s`` has all rounds but the first and the last, separated by spaces."""
    commit = commit_of(Path(__file__).parents[1])
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [name for name, _ in COLUMNS]
        writer.writerow(["case", "engine", "repeat", "trainer", "rounds", *names, "rounds_s", "commit"])
        for m in measured:
            numbers = [_cell(getattr(m, name), decimals) for name, decimals in COLUMNS]
            rounds = " ".join(f"{seconds:.4f}" for seconds in m.rounds_s)
            writer.writerow([m.case, m.engine, m.repeat, m.trainer, len(m.rounds_s) + 2, *numbers, rounds, commit])


def _cell(value: float, decimals: int) -> str:
    return "" if math.isnan(value) else f"{value:.{decimals}f}"


def commit_of(folder: Path) -> str:
    """The checkout's commit, with ``+`` where files differ from it; empty outside a checkout."""
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=30)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else ""


def cores() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(command: str) -> str:
    """The machine and the software, as lines of text."""
    packages = ", ".join(f"{name} {_version(name)}" for name in ("fedimb", "torch", "flwr", "ray", "numpy"))
    load = " ".join(f"{value:.2f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    lines = {
        "command": command,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit_of(Path(__file__).parents[1]) or "none: not a checkout",
        "machine": f"{_first('/proc/cpuinfo', 'model name') or platform.processor() or 'unknown'}, {cores()} cores",
        "memory": _first("/proc/meminfo", "MemTotal") or "unknown",
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": packages,
        "load": f"{load} (1, 5 and 15 minutes, when the bench ended)",
    }
    return "\n".join(f"{name:9} {text}" for name, text in lines.items())


def _first(file: str, key: str) -> str:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def table(figures: Figures, bars: Sequence[Bar]) -> str:
    """Medians of every case and engine, then the limits with pass or miss."""
    head = ["case", "engine", "trainer", "start s", "round ms", "rows/s", "whole s", "MB", "below MB", "macro recall"]
    rows = []
    for case, engine in figures.pairs():

        def shown(name: str, decimals: int, times: float = 1, case: str = case, engine: str = engine) -> str:
            return _cell(times * figures.median(case, engine, name), decimals) or "-"

        numbers = [shown("start_s", 2), shown("round_s", 1, 1000), shown("rows_per_s", 0), shown("whole_s", 2)]
        memory = [shown("peak_mb", 0), shown("others_mb", 0)]
        rows.append([case, engine, figures.trainer(case, engine) or "-", *numbers, *memory, shown("macro_recall", 3)])
    verdicts = [list(bar.shown(figures)) for bar in bars]
    parts = [_aligned(head, rows, left=3)]
    if verdicts:
        parts.append(_aligned(["ratio", "measured", "required", ""], verdicts, left=1))
    return "\n\n".join(parts)


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    lines = []
    for line in [head, *rows]:
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


NOTES = """\
Medians over repeats; one process per measurement, nothing else running, the engines of a case in turn. Data and
pictures were cached before (one short unmeasured run per case).
start     from the start of the process to the end of the first round (imports, engine, data, first steps)
round     median time between the ends of consecutive rounds, without the first and the last (which includes scoring)
whole     from the start of the process to its exit
MB        peak memory of the process itself; below MB: of the largest process it started
bare      the same clients, cohorts, batches and weights, by hand in torch on one thread; bare-w: in W processes
stock     engine=flower: Flower's own simulation with one CPU per client"""


def text(figures: Figures, bars: Sequence[Bar], command: str, workers: int, remarks: Sequence[str]) -> str:
    """The whole report: machine, table, verdicts, explanations, what was left out and why."""
    about = f"{machine(command)}\nworkers   {workers} (ray, bare-w and stock)"
    return "\n\n".join([about, table(figures, bars), "\n".join([NOTES, *remarks])]) + "\n"
