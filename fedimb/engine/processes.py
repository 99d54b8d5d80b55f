"""Find, record and end the processes an engine started, and no others.

A killed driver leaves Ray's helper processes behind, and some of them ignore SIGTERM. A process id alone
may since belong to someone else, so the start time is compared before anything is ended. Linux (/proc); elsewhere
nothing is recorded and nothing is ended.
"""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

_PROC = Path("/proc")


def _stat(pid: int) -> tuple[int, str] | None:
    """(parent id, start time in clock ticks since boot) of a live process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the command in parentheses may hold spaces
    return None if fields[0] == "Z" else (int(fields[1]), fields[19])


def start_time(pid: int) -> str | None:
    """When a process started (opaque, comparable), or None when no such process runs."""
    stat = _stat(pid)
    return stat[1] if stat else None


def descendants(root: int) -> list[int]:
    """Ids of all processes below ``root``, itself excluded."""
    children: dict[int, list[int]] = {}
    if not _PROC.is_dir():
        return []
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(stat[0], []).append(int(entry.name))
    found: list[int] = []
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child)
    return sorted(found)


def marked(marker: str) -> list[int]:
    """Ids of processes whose command line holds ``marker`` (a unique folder name), and of everything below them."""
    found: set[int] = set()
    if not _PROC.is_dir():
        return []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if marker.encode() in (entry / "cmdline").read_bytes():
                found |= {int(entry.name), *descendants(int(entry.name))}
    return sorted(found)


def record(pids: list[int]) -> dict[str, str]:
    """``{pid: start time}`` of those alive, ready for JSON."""
    return {str(pid): start for pid in pids if (start := start_time(pid))}


def end(recorded: dict[str, str], patience_s: float = 5.0) -> list[int]:
    """End the recorded processes that are still the same ones; returns the ids ended."""
    alive = [int(pid) for pid, start in recorded.items() if start_time(int(pid)) == start and int(pid) != os.getpid()]
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + patience_s
    while any(start_time(pid) == recorded[str(pid)] for pid in alive) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def stop(process: "subprocess.Popen[bytes]", marker: str, patience_s: float = 10.0) -> list[int]:
    """Ask a process to end, then end whatever of it and of the marked processes (see `marked`) is still alive.

    Returns the ids of the processes ended.
    """
    started = record(marked(marker))  # before it ends: an orphan has no parent to find it by and may not carry the mark
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return end(started | record(marked(marker)))
