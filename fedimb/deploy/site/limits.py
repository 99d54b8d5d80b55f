"""What a node may use, and when it is absent by plan. Source: ours; ``limits:`` and ``absent:`` of node.yaml.

What is enforced where: cores by CPU affinity and thread counts, for everything the node starts; memory by RLIMIT_DATA,
for each of its processes (all of them together only by ``MemoryMax=`` in the node's systemd unit); GPU memory by
torch's fraction, in the guard; disk by not starting, and by ending what runs. Times of day are local, as a hospital's
shifts are.
"""

import os
import resource
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

from fedimb.deploy.home import LimitsConfig, NodeConfig
from fedimb.errors import ConfigError

LEAST_FREE_BYTES = 1 << 30
"""Below this much free space a node does not start: a half-written state is worse than an absent node."""
_NEARLY = 0.9
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
GB = 10**9


def thread_variables(limits: LimitsConfig) -> dict[str, str]:
    """Environment variables that keep numeric libraries to the cores allowed; empty without a limit."""
    return {} if limits.cpus is None else dict.fromkeys(_THREADS, str(limits.cpus))


def apply(limits: LimitsConfig) -> list[str]:
    """Bind this process, and so everything it starts, to the limits; returns what is enforced, in words.

    Raises:
        ConfigError: the memory limit is below what this process already holds.
    """
    enforced = []
    if limits.cpus is not None and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[: limits.cpus]
        os.sched_setaffinity(0, cores)
        enforced.append(f"cores {', '.join(map(str, cores))} and no other")
    if limits.memory_gb is not None:
        most = int(limits.memory_gb * GB)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        except (ValueError, OSError) as error:
            raise ConfigError(f"limits.memory_gb: {limits.memory_gb} could not be set: {error}") from error
        enforced.append(f"{limits.memory_gb:g} GB of memory for each process")
    if limits.gpu_share is not None:
        enforced.append(f"{limits.gpu_share:.0%} of a GPU's memory, when a message is answered")
    return enforced


@dataclass(frozen=True)
class Disk:
    """Bytes the node's folder holds, bytes free beside it, and the most it may hold (None: no limit)."""

    used: int
    free: int
    limit: int | None

    def refusal(self) -> str | None:
        """Why a node may not run, with the remedy; None when it may."""
        remedy = "free space or raise limits.disk_gb, then it goes on by itself"
        if self.limit is not None and self.used >= self.limit:
            return f"the node's folder holds {self.used / GB:.1f} GB of the {self.limit / GB:g} allowed: {remedy}"
        if self.free < LEAST_FREE_BYTES:
            return f"only {self.free / GB:.2f} GB are free on the node's disk, 1.1 are needed: {remedy}"
        return None

    def warning(self) -> str | None:
        """What to say before it is too late; None below 90 %."""
        if self.limit is not None and self.used >= _NEARLY * self.limit:
            return f"the node's folder holds {self.used / GB:.1f} GB of the {self.limit / GB:g} allowed"
        if self.free < 2 * LEAST_FREE_BYTES:
            return f"only {self.free / GB:.2f} GB are free on the node's disk"
        return None


def disk(root: Path, limits: LimitsConfig) -> Disk:
    """The disk as it is now; files that vanish while they are counted count nothing."""
    used = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                used += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
    limit = None if limits.disk_gb is None else int(limits.disk_gb * GB)
    return Disk(used, shutil.disk_usage(root).free, limit)


@dataclass(frozen=True)
class Absence:
    """Why a node is absent by plan, and the local time until which; ``until`` is a lower bound."""

    reason: str
    until: datetime


def absence(config: NodeConfig, now: datetime) -> Absence | None:
    """Whether node.yaml plans the node to be absent at ``now`` (local time, without zone).

    Raises:
        ConfigError: hours or a date that cannot be read.
    """
    for first, last in periods(config.absent):
        if first <= now.date() <= last:
            return Absence(f"absent from {first} to {last}", datetime.combine(last + timedelta(days=1), time()))
    if config.limits.hours is not None:
        start, end = window(config.limits.hours)
        at = now.time()
        inside = start <= at < end if start < end else at >= start or at < end
        if not inside:
            opens = datetime.combine(now.date(), start)
            return Absence(f"outside its hours {config.limits.hours}", opens + timedelta(days=opens <= now))
    return None


def window(hours: str) -> tuple[time, time]:
    """``20:00-06:00`` as two times of day; the end may lie on the next day. ``00:00-24:00`` is the whole day.

    Raises:
        ConfigError: no times of day, or a window of no length.
    """
    first, _, last = hours.partition("-")
    try:
        start, end = time.fromisoformat(first), time() if last == "24:00" else time.fromisoformat(last)
    except ValueError:
        raise ConfigError(f"node.yaml: limits.hours: '{hours}' are no times of day: write 20:00-06:00") from None
    if start == end and last != "24:00":
        raise ConfigError(f"node.yaml: limits.hours: '{hours}' is a window of no length: leave it out to run always")
    return start, end


def periods(absent: Iterable[str]) -> list[tuple[date, date]]:
    """``absent:`` as pairs of first and last day, both included.

    ``2026-12-24``, ``2026-12-24..2027-01-06``, and the same as ``24.12.2026``.

    Raises:
        ConfigError: a line that is no date, or whose end is before its beginning.
    """
    found = []
    for line in absent:
        parts = [part.strip() for part in line.split("..")] if ".." in line else [line.strip()]
        try:
            first, last = _day(parts[0]), _day(parts[-1])
        except ValueError:
            parts = []
        if len(parts) not in (1, 2) or last < first:
            raise ConfigError(
                f"node.yaml: absent: '{line}' is no day or range: write 2026-12-24 or 2026-12-24..2027-01-06"
            )
        found.append((first, last))
    return found


def _day(text: str) -> date:
    parts = text.split(".")
    return date(int(parts[2]), int(parts[1]), int(parts[0])) if len(parts) == 3 else date.fromisoformat(text)
