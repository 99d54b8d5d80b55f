"""A site's audit log: one line of JSON for everything that left and every decision, each hashed over the one before.

```
{"at":"2026-03-01T08:00:00Z","before":"<sha of line 6>","facts":{...},"kind":"message","n":7,"sha":"<of this line>"}
```

``sha`` is the SHA-256 of the line without ``sha`` (keys sorted, no spaces, UTF-8). The number and hash of the last line
are also kept in ``<name>.head.json``, written after the line. So an edited, deleted, moved or cut line is found at the
site. Who can write both files can make up a whole new log: that only the coordinator can tell, to whom number and hash
of the line about a message travel with it (`verify` compares with them). Hash chains: Schneier and Kelsey, USENIX
Security 1998, without their keys; the rest is ours.
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
    FIRST,
    BadLine,
    Head,
    end_fault,
    fault_of,
    parsed_line,
    sha_of,
    text_of,
    told_fault,
)
from fedimb.errors import DataError
from fedimb.plain import JsonObject
from fedimb.tracking.lock import locked

_WAIT_S = 30.0
_BLOCK = 65536


def utc_now() -> str:
    """Now, as in 2026-03-01T08:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class AuditLog:
    """An append-only file. Many processes may append at once.

    Args:
        path: ``audit.jsonl``; its folder exists. Beside it lie ``audit.head.json`` and ``audit.lock``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head, self._lock = path.with_suffix(".head.json"), path.with_suffix(".lock")

    def append(self, kind: str, facts: dict[str, object]) -> Head:
        """Write a line; when this returns it is on disk. A line cut short by a crash is removed first, and that noted.

        Args:
            kind: ``message``, ``decision``, ...
            facts: JSON-able.

        Raises:
            DataError: the log's end is not what was last written.
            Busy: another process holds the log for half a minute.
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
        sha = sha_of(body)
        with open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE), "ab") as file:
            file.write(text_of(body | {"sha": sha}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        write_private(self._head, text_of({"line": last.line + 1, "sha": sha}) + b"\n")
        return Head(last.line + 1, sha)

    def _end(self) -> tuple[Head, bytes]:
        """The last whole line as the head file has it, and what a crash left behind it."""
        known, (raw, torn) = self.head(), self._tail()
        if not raw:
            if known.line == 0:
                return known, torn
        else:
            line = parsed_line(raw)
            if line is not None:
                found = Head(int(line["n"]), str(line["sha"]))
                crashed = found.line == known.line + 1 and line["before"] == known.sha  # before the head was written
                if found == known or crashed:
                    return found, torn
        raise DataError(
            f"{self.path} does not end as it was left, so nothing may leave this site: see fedimb node audit verify; "
            f"keep it and {self._head.name} as evidence elsewhere, then a new log begins"
        )

    def _tail(self) -> tuple[bytes, bytes]:
        """(last line that ends, bytes behind it)."""
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
        """What the head file says. DataError when it is damaged."""
        if not self._head.exists():
            return Head(0, FIRST)
        try:
            facts = json.loads(self._head.read_text(encoding="utf-8"))
            return Head(int(facts["line"]), str(facts["sha"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self._head} is damaged ({error}): put it back from a copy, or keep it and {self.path.name} as "
                "evidence elsewhere, then a new log begins"
            ) from error

    def verify(self, told: Iterable[Head] = ()) -> BadLine | None:
        """Look at every line; None: all as written.

        A last line cut short, or one behind the head file, is what a crash leaves and no fault.

        Args:
            told: what the coordinator was told with messages that left.

        Raises:
            DataError: the head file is damaged.
        """
        with locked(self._lock, _WAIT_S):
            raws = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
            known = self.head()
        torn, raws = raws[-1], raws[:-1]
        lines = [parsed_line(raw) for raw in raws]
        numbers = {line["n"] for line in lines if line}
        shas = [FIRST]
        for number, line in enumerate(lines, 1):
            if wrong := fault_of(number, line, shas[-1], numbers):
                return BadLine(number, wrong)
            assert line is not None
            shas.append(line["sha"])
        return end_fault(shas, known, bool(torn)) or told_fault(shas, told)

    def lines(self, first: str = "", last: str = "") -> Iterator[JsonObject]:
        """Whole lines of a period, as written; not verified.

        Args:
            first, last: beginnings of UTC times, both included: ``2026-03``, ``2026-03-01``; empty: no bound.
        """
        if not self.path.exists():
            return
        for raw in self.path.read_bytes().split(b"\n")[:-1]:
            line = parsed_line(raw)
            if line and first <= line["at"][: len(first)] and (not last or line["at"][: len(last)] <= last):
                yield line

    def export(self, form: str, first: str = "", last: str = "") -> bytes:
        """A period as ``json`` (a list of the lines) or ``csv`` (a column per fact, no cell a formula)."""
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
