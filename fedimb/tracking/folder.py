"""Reads a run folder for tracking: rows, status, lines of metrics, artifacts."""

import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

from fedimb.errors import DataError
from fedimb.plain import JsonObject
from fedimb.rundir.folder import RunFolder


@dataclass(frozen=True)
class Point:
    """One metric value. ``value`` is finite or NaN; ``time`` in epoch milliseconds."""

    row: str
    name: str
    value: float
    step: int
    time: int


def read_rows(folder: Path) -> dict[str, dict[str, object]]:
    """Read ``rows.json`` by label.

    Raises:
        DataError: missing, unreadable, or two rows with the same label.
    """
    path = folder / "rows.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        rows = {str(row["label"]): row for row in stored}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: {folder} is not the folder of a fedimb run") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}); run again") from None
    if len(rows) != len(stored):
        raise DataError(f"{path} names one row twice; give the rows different names")
    return rows


def identity_tags(folder: Path) -> dict[str, str]:
    """Tags of what the run is made of (`fedimb.rundir.identity`); empty for a run folder of fedimb 0.1."""
    path = folder / "identity.json"
    content = RunFolder(folder).read(path.name)  # raises if it is not as it was sealed
    if content is None:
        return {}
    try:
        stored = json.loads(content)
        hashes = {"identity": stored["sha"], "data_sha": stored["data"], "code_sha": stored["code_sha"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}); run again") from None
    return {f"fedimb.{name}": str(sha) for name, sha in hashes.items()}


def read_status(folder: Path) -> tuple[str, int]:
    """(status, time of writing in epoch ms); ("running", now) before the first ``status.json``."""
    path = folder / "status.json"
    if not path.exists():
        return "running", int(time.time() * 1000)
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["status"]), int(path.stat().st_mtime * 1000)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}); resume the run") from None


def read_suspicions(folder: Path, key: str = "suspect") -> dict[str, str]:
    """Row label -> why its result should not be trusted, of the suspect rows of a finished run.

    Args:
        key: ``alarms``: the classes whose recall fell instead, and how far.
    """
    path = folder / "result.json"
    if not path.exists():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        named = "{}: {}" if key == "alarms" else "{1}"
        return {str(r["label"]): "; ".join(named.format(*one) for one in r[key].items()) for r in rows if r.get(key)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}); run again") from None


def first_time(folder: Path) -> int | None:
    """Epoch milliseconds of the first line of ``metrics.jsonl``; None if there is no complete line yet."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return None
    with path.open("rb") as handle:
        line = handle.readline()
    points = parse(line, f"{path} at byte 0") if line.endswith(b"\n") else []
    return points[0].time if points else None


def parse(line: bytes, place: str) -> list[Point]:
    """Parse one line of ``metrics.jsonl``.

    null is NaN; infinity becomes NaN, because MLflow would store 1.8e308, which flattens every chart.

    Raises:
        DataError: the line does not have the format that runs write; names ``place``.
    """
    try:
        stored: JsonObject = json.loads(line)
        row, step, time = str(stored["row"]), int(stored["step"]), int(stored["time"])
        values = {str(k): float("nan") if v is None else float(v) for k, v in stored["metrics"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{place}: not a line of metrics ({type(error).__name__}: {error}); the file was edited or its"
            " disk failed: truncate it before that byte and resume the run"
        ) from None
    return [Point(row, k, v if math.isfinite(v) else math.nan, step, time) for k, v in values.items()]


def artifacts_digest(paths: list[Path]) -> str:
    """Digest of names, sizes and times of all files below: changes if there is something new to upload."""
    digest = hashlib.sha256()
    for top in paths:
        for path in [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file()):
            stat = path.stat()
            digest.update(f"{path.relative_to(top.parent)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
