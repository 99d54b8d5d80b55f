"""What resources a node may use, and when it is absent by plan: ``limits:`` and ``absent:`` of node.yaml.

How limits are enforced: cores by CPU affinity and thread counts, for everything the node starts; memory by RLIMIT_DATA,
per process (for all processes together only by ``MemoryMax=`` in the node's systemd unit); GPU memory by torch's memory
fraction, in the guard; disk by not starting, or by stopping, the node. Times of day are local, like a hospital's
shifts.
"""

import os
import resource
import shutil
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path

from fedimb.deploy.home import LimitsConfig, NodeConfig
from fedimb.deploy.planned_times import parse_absences, parse_hours
from fedimb.errors import ConfigError

LEAST_FREE_BYTES = 1 << 30
"""With less free space than this a node does not start: an absent node is better than a half-written state."""
_NEARLY = 0.9
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
GB = 10**9


def thread_variables(limits: LimitsConfig) -> dict[str, str]:
    """Environment variables that limit numeric libraries to the allowed cores; empty without a limit."""
    return {} if limits.cpus is None else dict.fromkeys(_THREADS, str(limits.cpus))


def apply_limits(limits: LimitsConfig) -> list[str]:
    """Apply the limits to this process and everything it starts. Returns descriptions of what is enforced.

    Raises:
        ConfigError: the memory limit is below what this process already uses.
    """
    enforced = []
    if limits.cpus is not None and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[: limits.cpus]
        os.sched_setaffinity(0, cores)
        enforced.append(f"cores {', '.join(map(str, cores))} only")
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
        enforced.append(f"{limits.gpu_share:.0%} of a GPU's memory, while handling a message")
    return enforced


@dataclass(frozen=True)
class Disk:
    """Disk space of a node in bytes.

    Attributes:
        used: size of the node's folder.
        free: free space on its disk.
        limit: largest allowed size of the folder; None: no limit.
    """

    used: int
    free: int
    limit: int | None

    def refusal(self) -> str | None:
        """Why the node may not run, with the remedy; None if it may."""
        remedy = "free some space or raise limits.disk_gb; the node then continues automatically"
        if self.limit is not None and self.used >= self.limit:
            return f"the node's folder takes {self.used / GB:.1f} of the {self.limit / GB:g} GB allowed: {remedy}"
        if self.free < LEAST_FREE_BYTES:
            return f"only {self.free / GB:.2f} GB are free on the node's disk, 1.1 GB are needed: {remedy}"
        return None

    def warning(self) -> str | None:
        """A warning when the limit or the disk is nearly full (90 %); None otherwise."""
        if self.limit is not None and self.used >= _NEARLY * self.limit:
            return f"the node's folder takes {self.used / GB:.1f} of the {self.limit / GB:g} GB allowed"
        if self.free < 2 * LEAST_FREE_BYTES:
            return f"only {self.free / GB:.2f} GB are free on the node's disk"
        return None


def disk_usage(root: Path, limits: LimitsConfig) -> Disk:
    """Current disk usage. Files that disappear during counting are ignored."""
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
    """Why a node is absent by plan, and until when.

    Attributes:
        reason: why.
        until: local time; it may return later, but not earlier.
    """

    reason: str
    until: datetime


def planned_absence(config: NodeConfig, now: datetime) -> Absence | None:
    """The absence that node.yaml plans for ``now`` (local time, without zone), or None."""
    for first, last in parse_absences(config.absent):
        if first <= now.date() <= last:
            return Absence(f"absent from {first} to {last}", datetime.combine(last + timedelta(days=1), time()))
    if config.limits.hours is not None:
        start, end = parse_hours(config.limits.hours)
        at = now.time()
        inside = start <= at < end if start < end else at >= start or at < end
        if not inside:
            opens = datetime.combine(now.date(), start)
            return Absence(f"outside its hours {config.limits.hours}", opens + timedelta(days=opens <= now))
    return None
