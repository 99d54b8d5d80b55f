"""A site's audit log: one hash-chained JSON line for every message that left the site and every decision.

```
{"at":"2026-03-01T08:00:00Z","before":"<sha of line 6>","facts":{...},"kind":"message","n":7,"sha":"<of this line>"}
```

``sha`` is the SHA-256 of the line without ``sha`` (keys sorted, no spaces, UTF-8). The number and hash of the last line
are also kept in ``<name>.head.json``, which is written after the line. This is how the site itself detects a line that
was edited, deleted, moved or cut off. Someone who can write both files can forge a whole new log; only the coordinator
can detect that, because every message carries the number and hash of its log line (`verify` compares them). Hash
chains: Schneier and Kelsey, USENIX Security 1998, without their keys.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from fedimb.annotation.private import FILE, write_private
from fedimb.annotation.tables import csv_bytes, safe_cell
from fedimb.deploy.audit_chain import (
    GENESIS_SHA,
    BadLine,
    Head,
    canonical_json,
    end_fault,
    heads_fault,
    line_fault,
    line_sha,
    parse_line,
)
from fedimb.errors import DataError
from fedimb.plain import JsonObject
from fedimb.tracking.lock import locked

_WAIT_S = 30.0
_BLOCK = 65536


def utc_now() -> str:
    """The current UTC time, formatted as in 2026-03-01T08:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class AuditLog:
    """An append-only log file that several processes may write to.

    Args:
        path: ``audit.jsonl`` in an existing folder. ``audit.head.json`` and ``audit.lock`` are kept next to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head, self._lock = path.with_suffix(".head.json"), path.with_suffix(".lock")

    def append(self, kind: str, facts: dict[str, object]) -> Head:
        """Append a line and flush it to disk. If a crash left an unfinished line, remove it first and log the removal.

        Args:
            kind: ``message``, ``decision``, ...
            facts: JSON-able.

        Raises:
            DataError: the end of the log is not what was last written.
            Busy: another process has held the log's lock for 30 seconds.
        """
        with locked(self._lock, _WAIT_S):
            last, torn = self._end()
            if torn:
                os.truncate(self.path, self.path.stat().st_size - len(torn))
                cut = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
                last = self._write(last, "unfinished line removed", cut)
            return self._write(last, kind, facts)

    def _write(self, last: Head, kind: str, facts: dict[str, object]) -> Head:
        body = {"n": last.line + 1, "at": utc_now(), "kind": kind, "facts": facts, "before": last.sha}
        sha = line_sha(body)
        with open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE), "ab") as file:
            file.write(canonical_json(body | {"sha": sha}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        write_private(self._head, canonical_json({"line": last.line + 1, "sha": sha}) + b"\n")
        return Head(last.line + 1, sha)

    def _end(self) -> tuple[Head, bytes]:
        """The last complete line, as the head file records it, and any bytes a crash left after it."""
        known, (raw, torn) = self.head(), self._tail()
        if not raw:
            if known.line == 0:
                return known, torn
        else:
            line = parse_line(raw)
            if line is not None:
                found = Head(int(line["n"]), str(line["sha"]))
                crashed = found.line == known.line + 1 and line["before"] == known.sha  # before the head was written
                if found == known or crashed:
                    return found, torn
        raise DataError(
            f"{self.path} does not end with the line last written, so nothing may leave this site: run fedimb node "
            f"audit verify, then move this file and {self._head.name} elsewhere as evidence; the next message "
            "starts a new log"
        )

    def _tail(self) -> tuple[bytes, bytes]:
        """(last complete line, bytes after it)."""
        if not self.path.exists():
            return b"", b""
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start, data = size, b""
            while start > 0 and data.count(b"\n") < 2:
                start = max(0, start - _BLOCK)
                file.seek(start)
                data = file.read(size - start)
        whole, newline, torn = data.rpartition(b"\n")
        return whole.rpartition(b"\n")[2] if newline else b"", torn

    def head(self) -> Head:
        """The last line as the head file records it. Raises DataError if that file is damaged."""
        if not self._head.exists():
            return Head(0, GENESIS_SHA)
        try:
            facts = json.loads(self._head.read_text(encoding="utf-8"))
            return Head(int(facts["line"]), str(facts["sha"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self._head} is damaged ({error}): restore it from a backup, or move it and {self.path.name} "
                "elsewhere as evidence; the next message starts a new log"
            ) from error

    def verify(self, heads: Iterable[Head] = ()) -> BadLine | None:
        """Check every line. Returns the first bad one, or None if all are as written.

        A crash can leave an unfinished last line, or a line the head file does not have yet. Neither is an error.

        Args:
            heads: line numbers and hashes that the coordinator received with the site's messages.

        Raises:
            DataError: the head file is damaged.
        """
        with locked(self._lock, _WAIT_S):
            raws = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
            known = self.head()
        torn, raws = raws[-1], raws[:-1]
        lines = [parse_line(raw) for raw in raws]
        numbers = {line["n"] for line in lines if line}
        shas = [GENESIS_SHA]
        for number, line in enumerate(lines, 1):
            if wrong := line_fault(number, line, shas[-1], numbers):
                return BadLine(number, wrong)
            assert line is not None
            shas.append(line["sha"])
        return end_fault(shas, known, bool(torn)) or heads_fault(shas, heads)

    def lines(self, first: str = "", last: str = "") -> Iterator[JsonObject]:
        """The complete lines of a period, as written and without verification.

        Args:
            first, last: prefixes of UTC times, both inclusive: ``2026-03``, ``2026-03-01``. Empty means no bound.
        """
        if not self.path.exists():
            return
        for raw in self.path.read_bytes().split(b"\n")[:-1]:
            line = parse_line(raw)
            if line and first <= line["at"][: len(first)] and (not last or line["at"][: len(last)] <= last):
                yield line

    def export(self, form: str, first: str = "", last: str = "") -> bytes:
        """Export a period as ``json`` (a list of the lines) or ``csv`` (a column per fact, cells are formula-safe)."""
        found = list(self.lines(first, last))
        if form == "json":
            return (json.dumps(found, ensure_ascii=False, indent=1) + "\n").encode()
        facts = sorted({key for line in found for key in line["facts"]})
        rows = [["n", "at", "kind", *facts, "sha_before", "sha_line"]]
        for line in found:
            cells = [line["n"], line["at"], line["kind"], *(line["facts"].get(key, "") for key in facts)]
            rows.append([safe_cell(_cell(cell)) for cell in cells] + [line["before"], line["sha"]])
        return csv_bytes(rows)


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
