"""Status of a node, for people and for monitoring: status.json, and node.prom for Prometheus.

The supervisor writes both atomically, every 15 seconds and at every change. States: ``running``, ``waiting`` (for a
person here, or for the coordinator), ``absent`` (by plan, not an error), ``failed`` (with the reason and the time of
the next try), ``stopped`` (on request). Times are UTC, ISO 8601.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedimb.deploy.home import NodeHome
from fedimb.engine.processes import start_time
from fedimb.errors import ConfigError
from fedimb.plain import JsonObject

STATES = ("running", "waiting", "absent", "failed", "stopped")
STATUS, METRICS = "status.json", "node.prom"
SCHEMA = 1
EXPIRES_SOON_DAYS = 30
_STALE_S = 90.0


def format_iso(at: float) -> str:
    """Format seconds since 1970 as in ``2026-11-22T03:53:00Z``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_iso(text: str | None) -> float:
    """The inverse of `format_iso`; NaN for None."""
    return math.nan if text is None else datetime.fromisoformat(text).timestamp()


@dataclass
class Status:
    """Snapshot of a node.

    Attributes:
        site: the site's name.
        state: one of `STATES`.
        since: when this state began.
        reason: why, and what to do if anything needs to be done.
        time: when this was written.
        supervisor: ``{pid: start time}`` of the process that wrote it.
        node: the SuperNode's process id; None if none is running.
        connected: since when the coordinator knows the node; None if it does not.
        restarts: number of restarts since the supervisor started.
        message: the last message answered: time, run, type, round, outcome.
        inbox: number of items that wait for a person at the site.
        certificate: when the coordinator's authority expires.
        disk: bytes used, free, and the limit.
        warnings: things that will need attention soon.
        fedimb, flower: versions.
        schema: version of this file's format.
    """

    site: str
    state: str
    since: str
    reason: str = ""
    time: str = ""
    supervisor: dict[str, str] = field(default_factory=dict)
    node: int | None = None
    connected: str | None = None
    restarts: int = 0
    message: JsonObject | None = None
    inbox: int = 0
    certificate: str | None = None
    disk: dict[str, int | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    fedimb: str = ""
    flower: str = ""
    schema: int = SCHEMA


def write_status(home: NodeHome, status: Status) -> None:
    """Write status.json and node.prom atomically."""
    _replace(home.file(STATUS), json.dumps(asdict(status), indent=1, ensure_ascii=False) + "\n")
    _replace(home.file(METRICS), prometheus(status))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_status(home: NodeHome) -> Status:
    """Read the status that was last written.

    Raises:
        ConfigError: the node never ran, or another release wrote the file.
    """
    path = home.file(STATUS)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"this node has never run: start it with fedimb node run --home {home.root}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}): restart the node, which rewrites it") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ConfigError(f"{path} was written by another release of fedimb: start the node again")
    known = {one.name for one in fields(Status)}
    return Status(**{name: value for name, value in found.items() if name in known})


def read_json(path: Path) -> JsonObject | None:
    """Read a file with one JSON object; None if it is missing or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def last_written(home: NodeHome) -> float:
    """When the status was last written, in seconds since 1970; minus infinity if never."""
    try:
        return parse_iso(read_status(home).time)
    except (ConfigError, ValueError, TypeError):
        return -math.inf


def judge(status: Status, now: float) -> tuple[int, str]:
    """Exit code and one line: 0 healthy, 1 needs attention, 2 does not take part.

    If the supervisor is gone, or has not written for 90 seconds, the node counts as failed whatever was last written.
    """
    alive = any(start_time(int(pid)) == start for pid, start in status.supervisor.items())
    if status.state == "stopped":
        return 2, f"stopped since {status.since}: {status.reason}"
    if not alive:
        return 2, f"not running: last seen {status.time} ({status.state}); start it: fedimb node run"
    if now - parse_iso(status.time) > _STALE_S:
        return 2, f"hangs: its supervisor has not written since {status.time}; restart the node"
    line = f"{status.state} since {status.since}" + (f": {status.reason}" if status.reason else "")
    if status.state == "failed":
        return 2, line
    return (1 if status.state == "waiting" or status.warnings else 0), line


def prometheus(status: Status) -> str:
    """The status in Prometheus format, for node_exporter's textfile collector."""
    site = f'site="{status.site}"'
    message = status.message or {}
    rows: list[tuple[str, str, str, float]] = [
        ("state", "1 for the state the node is in", f'{site},state="{state}"', float(state == status.state))
        for state in STATES
    ]
    rows += [
        ("info", "Versions", f'{site},fedimb="{status.fedimb}",flower="{status.flower}"', 1.0),
        ("written_seconds", "When this file was written", site, parse_iso(status.time)),
        ("connected", "1 while the coordinator knows the node", site, float(status.connected is not None)),
        ("restarts_total", "Restarts since the supervisor started", site, float(status.restarts)),
        ("inbox", "Items that wait for a person at the site", site, float(status.inbox)),
        ("warnings", "Things that will need attention soon", site, float(len(status.warnings))),
        ("last_message_seconds", "When the last message was answered", site, parse_iso(message.get("time"))),
        ("last_round", "Round of the last message", site, _number(message.get("round"))),
        ("certificate_expiry_seconds", "When the authority's certificate expires", site, parse_iso(status.certificate)),
        ("disk_used_bytes", "Size of the node's folder", site, _number(status.disk.get("used"))),
        ("disk_free_bytes", "Free space on its disk", site, _number(status.disk.get("free"))),
        ("disk_limit_bytes", "limits.disk_gb", site, _number(status.disk.get("limit"))),
    ]
    lines, described = [], set()
    for name, text, labels, value in rows:
        if name not in described:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP fedimb_node_{name} {text}.", f"# TYPE fedimb_node_{name} {kind}"]
            described.add(name)
        lines.append(f"fedimb_node_{name}{{{labels}}} {'NaN' if math.isnan(value) else f'{value:.16g}'}")
    return "\n".join(lines) + "\n"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
