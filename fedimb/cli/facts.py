"""What a run folder says at a glance, finished or not, without loading a model or the data."""

import fcntl
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from fedimb.plain import JsonObject
from fedimb.rundir.folder import RunFolder

_TAIL = 1 << 16  # bytes read from the end of metrics.jsonl: more than a line of 1,000 classes


@dataclass(frozen=True)
class RunFacts:
    """One run.

    Attributes:
        path: the folder.
        status: ``running`` (a process holds it), ``killed`` (none does, yet it is unfinished), ``waiting``, ``failed``
            or ``finished``.
        reason: why it waits, failed or is suspect; else empty.
        labels: its row labels.
        seed: run seed.
        done, total: rounds in ``metrics.jsonl``, and configured ones (of a finished run: those it took).
        scores: row label -> headline scores of a finished run.
        suspect: labels of a finished run's suspect rows.
        changed: epoch seconds of its last sign of life.
    """

    path: Path
    status: str
    reason: str
    labels: tuple[str, ...]
    seed: int
    done: int
    total: int
    scores: dict[str, dict[str, float]]
    changed: float
    suspect: frozenset[str] = frozenset()


def in_use(path: Path) -> bool:
    """Whether a process holds the run's lock. Asks with a shared lock, so that askers never stop each other."""
    try:
        handle = os.open(path / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def read_facts(path: Path) -> RunFacts:
    """Read one run folder. Raises FedimbError when it is not one."""
    folder = RunFolder.open(path)
    config = folder.read_json("config.json")
    stored = folder.read_json("status.json", {})
    result = folder.read_json("result.json", {})
    status = str(stored.get("status", "new"))
    if in_use(folder.path):
        status = "running"
    elif status in ("running", "new"):
        status = "killed"
    rows = folder.read_json("rows.json", [])
    done = int(result.get("rounds", _rounds_done(folder.path)))
    changed = max(float(stored.get("time", 0.0)), _changed(folder.path))
    finished = status == "finished"
    return RunFacts(
        folder.path,
        status,
        "" if status == "running" else str(stored.get("reason", "")),
        tuple(row["label"] for row in rows),
        int(config["seed"]),
        done,
        done if finished else max(done, int(config["rounds"])),
        {row["label"]: row["metrics"] for row in result.get("rows", [])} if finished else {},
        changed,
        frozenset(row["label"] for row in result.get("rows", []) if finished and row.get("suspect")),
    )


def _changed(path: Path) -> float:
    files = [path / name for name in ("metrics.jsonl", "journal.jsonl", "config.json")]
    return max(file.stat().st_mtime for file in files if file.exists())


def _last_line(path: Path) -> JsonObject:
    """The last whole line of ``metrics.jsonl``; a run may have thousands, and a list of runs reads them all."""
    file = path / "metrics.jsonl"
    if not file.exists():
        return {}
    with file.open("rb") as handle:
        handle.seek(max(0, file.stat().st_size - _TAIL))
        lines = handle.read().split(b"\n")[:-1]  # what follows the last line break is not whole
    try:
        line: JsonObject = json.loads(lines[-1]) if lines else {}
    except ValueError:  # a line longer than the tail
        line = (RunFolder(path).metrics() or [{}])[-1]
    return line


def _rounds_done(path: Path) -> int:
    return int(_last_line(path).get("step", 0))


def latest_scores(path: Path) -> dict[str, float]:
    """``test/`` scores of the last line of an unfinished run, without the prefix; empty before the first evaluation."""
    metrics = _last_line(path).get("metrics", {})
    return {k[5:]: math.nan if v is None else float(v) for k, v in metrics.items() if k.startswith("test/")}


def size_of(path: Path) -> int:
    """Bytes of all files below; links are not followed, files that vanish meanwhile count nothing."""
    total = 0
    for top, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(top, name)).st_size
            except FileNotFoundError:
                continue
    return total


def shown_bytes(size: float) -> str:
    """``12 kB``, ``3.4 MB``: powers of 1000, two figures below ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 9.95 else f"{size:.1f} {unit}"


def shown_age(seconds: float) -> str:
    """``40 s``, ``3 min``, ``5 h``, ``12 d``."""
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0.0, seconds) / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def age(facts: RunFacts) -> float:
    """Seconds since the run's last sign of life."""
    return time.time() - facts.changed
