"""Runs one command and measures the whole tree of processes that it starts: time, processor time and memory."""

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedimb.engine import processes

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphans below become this process's children, so that it can count them
_LOOK_S = 0.5
_ORPHANS_S = 10.0


@dataclass(frozen=True)
class Ran:
    """What one command took.

    Attributes:
        code: exit code.
        started: epoch seconds.
        whole_s: from its start to its exit, seconds.
        cpu_s: processor seconds, user and system, of the command and everything below it that has ended.
        tree_mb: largest sum over its processes of proportional memory (a page shared by n processes counts 1/n in
            each), looked at twice a second, megabytes (10^6 bytes); 0 without /proc.
    """

    code: int
    started: float
    whole_s: float
    cpu_s: float
    tree_mb: float


def run_tree(
    call: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path | None = None, longest_s: float = 3600.0
) -> Ran:
    """Run a command to its end, its output written to ``log``.

    Not for two commands at once: processor time is counted over all of this process's children.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``longest_s``; what it started has been ended.
    """
    used, before = _used(), set(_children())
    _adopt_orphans(True)
    try:
        code, started, whole, most = _run(call, log, environment, cwd, longest_s)
        _reap(before)
    finally:
        _adopt_orphans(False)
    return Ran(code, started, whole, _used() - used, most / 1e6)


def _run(
    call: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path | None, longest_s: float
) -> tuple[int, float, float, int]:
    """(exit code, start, seconds, most bytes) of the command."""
    with open(log, "wb") as file:
        started, clock = time.time(), time.perf_counter()
        process = subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, cwd=cwd)
        with _Watch(process.pid) as watch:
            try:
                process.wait(longest_s)
            except (KeyboardInterrupt, subprocess.TimeoutExpired):
                processes.end(processes.record([process.pid, *processes.descendants(process.pid)]))
                process.wait()
                raise
            whole = time.perf_counter() - clock
    return process.returncode, started, whole, watch.most


def _adopt_orphans(adopt: bool) -> None:
    """Whether processes whose parent has ended become children of this one. Linux; elsewhere they are not counted."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, int(adopt), 0, 0, 0)


def _used() -> float:
    """Processor seconds of this process's children that have ended and been waited for."""
    times = os.times()
    return times.children_user + times.children_system


def _children() -> list[int]:
    """Ids of this process's own children, ended ones included; empty without /proc."""
    tasks, found = Path("/proc/self/task"), list[int]()
    for task in tasks.iterdir() if tasks.is_dir() else ():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return found


def _reap(before: set[int]) -> None:
    """Wait for orphans that became children of this process; those that do not end soon are not counted."""
    until = time.monotonic() + _ORPHANS_S
    while left := [pid for pid in _children() if pid not in before]:
        for pid in left:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                before.add(pid)
        if time.monotonic() > until:
            return
        time.sleep(0.05)


class _Watch:
    """Looks at the memory of a tree of processes while the block runs."""

    def __init__(self, root: int) -> None:
        self._root, self.most = root, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.most = max(self.most, sum(map(_memory, [self._root, *processes.descendants(self._root)])))

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def _memory(pid: int) -> int:
    """Proportional memory of a process in bytes; 0 if it has ended or there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
