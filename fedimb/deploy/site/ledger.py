"""The site's ledger: what was asked of it and what it replied, as a sealed file that survives restarts and runs.

``ledger.jsonl`` is a hash chain in the format of the audit log (`fedimb.deploy.audit_chain`). Each audit line about a
message also has the number of lines, size and SHA-256 of the ledger at that time. So a ledger that was edited, cut,
deleted or replaced by an older copy no longer matches the audit log, and nothing is answered until a person at the site
acts (`Ledger.restart`). Someone who forges both files at once is found only by the coordinator's copy of the audit
log's heads.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedimb.annotation.private import FILE, write_private
from fedimb.deploy.audit_chain import GENESIS_SHA, BadLine, canonical_json, line_fault, line_sha, parse_line
from fedimb.deploy.audit_log import AuditLog, utc_now
from fedimb.deploy.home import NodeHome
from fedimb.errors import DataError
from fedimb.plain import JsonObject
from fedimb.tracking.lock import locked

FILE_NAME = "ledger.jsonl"
_WAIT_S = 60.0
_BLOCK = 1 << 16
_MARK = b'"ledger":{"bytes":'


@dataclass(frozen=True)
class Mark:
    """The ledger at one time, as audit lines have it.

    Attributes:
        lines, bytes: its length.
        sha256: hash (hex) of these bytes.
    """

    lines: int
    bytes: int
    sha256: str


class LedgerDamaged(DataError):
    """The ledger is not as it was written. A person at the site must act."""


class Ledger:
    """A node's ledger. Read and append within `locked`, as several processes answer messages.

    Args:
        home: the node's folder.
    """

    def __init__(self, home: NodeHome) -> None:
        self.home, self.path = home, home.file(FILE_NAME)
        self._data, self._count, self._hash = bytearray(), 0, hashlib.sha256()
        self._intact = False

    @contextmanager
    def locked(self) -> Iterator["Ledger"]:
        """Hold the ledger's lock, and read it.

        Raises:
            LedgerDamaged: it is not as it was written.
        """
        with locked(self.path.with_suffix(".lock"), _WAIT_S):
            self._read()
            yield self

    def _read(self) -> None:
        self._intact = False
        data, mark = _whole_lines(self.path), last_mark(self.home.file("audit.jsonl"))
        known, count = (mark.bytes, mark.lines) if mark else (0, 0)
        self._hash = hashlib.sha256(memoryview(data)[:known])
        if mark and (len(data) < known or self._hash.hexdigest() != mark.sha256):
            raise LedgerDamaged(
                f"{self.path} is not as the audit log has it: it was edited, cut, deleted or restored from an older "
                f"copy. Look for the cause; then continue with the lines that are left: fedimb node ledger --restart"
            )
        if bad := _fault(data, known, count):
            raise LedgerDamaged(
                f"{self.path}: {bad}. Look for the cause; then continue with the lines before it: "
                "fedimb node ledger --restart"
            )
        self._hash.update(memoryview(data)[known:])
        self._data, self._count, self._intact = bytearray(data), count + data.count(b"\n", known), True

    @property
    def length(self) -> int:
        """Number of lines as last read."""
        return self._count

    def verify(self) -> None:
        """Check every line. Raises LedgerDamaged."""
        with self.locked():
            if bad := _fault(bytes(self._data)):
                raise LedgerDamaged(f"{self.path}: {bad}")

    def lines(self, *texts: str) -> Iterator[JsonObject]:
        """Lines that contain each of these JSON texts, such as ``"run":"r1"``, newest first."""
        first, *others = (text.encode() for text in texts)
        end = len(self._data)
        while (at := self._data.rfind(first, 0, end)) >= 0:
            start, stop = self._data.rfind(b"\n", 0, at) + 1, self._data.find(b"\n", at)
            raw = self._data[start:stop]
            if all(one in raw for one in others):
                yield json.loads(raw)
            end = start

    def append(self, kind: str, facts: dict[str, Any], durable: bool = True) -> None:
        """Append a line.

        Args:
            kind: what the line is about.
            facts: JSON-able.
            durable: flush it to disk. False: a power cut may lose the line, and nothing has left by then.
        """
        before = _last_sha(self._data)
        body = {"n": self._count + 1, "at": utc_now(), "kind": kind, "facts": facts, "before": before}
        raw = canonical_json(body | {"sha": line_sha(body)})
        with open(os.open(self.path, os.O_RDWR | os.O_CREAT, FILE), "r+b") as file:
            file.truncate(len(self._data))  # an unfinished line of a crashed process
            file.seek(len(self._data))
            file.write(raw + b"\n")
            file.flush()
            if durable:
                os.fsync(file.fileno())
        self._data += raw + b"\n"
        self._count += 1
        self._hash.update(raw + b"\n")

    def mark(self) -> JsonObject | None:
        """The ledger as last read or written, for an audit line; None if it was not as it was written."""
        if not self._intact:
            return None
        return asdict(Mark(self._count, len(self._data), self._hash.hexdigest()))

    def restart(self, by: str, reason: str) -> int:
        """Continue a damaged ledger from its lines before the first bad one. Returns how many these are.

        The file as found is kept beside it as evidence. The audit log gets a line.
        """
        with locked(self.path.with_suffix(".lock"), _WAIT_S):
            data = _whole_lines(self.path)
            if bad := _fault(data):
                data = b"".join(data.splitlines(keepends=True)[: bad.line - 1])
            evidence = self.path.with_name(f"ledger.{utc_now().replace(':', '')}.jsonl")
            if self.path.exists():
                write_private(evidence, self.path.read_bytes())
            write_private(self.path, data)
            self._data, self._hash, self._intact = bytearray(data), hashlib.sha256(data), True
            self._count = count = data.count(b"\n")
            self.append("restart", {"by": by, "reason": reason, "lines": count})
            self.log("restart", {"lines": count, "evidence": evidence.name, "by": by, "reason": reason})
        return count

    def log(self, what: str, facts: dict[str, Any]) -> None:
        """Write a person's act to the audit log, with the ledger's mark."""
        AuditLog(self.home.file("audit.jsonl")).append("ledger", {"what": what, **facts, "ledger": self.mark()})


def _whole_lines(path: Path) -> bytes:
    """The file without an unfinished last line, which a crash can leave."""
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def _last_sha(data: bytes | bytearray) -> str:
    """The hash of the last line."""
    line = parse_line(bytes(data[data.rfind(b"\n", 0, max(0, len(data) - 1)) + 1 : -1])) if data else None
    return GENESIS_SHA if line is None else str(line["sha"])


def _fault(data: bytes, known: int = 0, count: int = 0) -> BadLine | None:
    """The first bad line after the first ``known`` bytes, which are ``count`` lines."""
    before = _last_sha(data[:known])
    for number, raw in enumerate(data[known:].split(b"\n")[:-1], count + 1):
        line = parse_line(raw)
        if wrong := line_fault(number, line, before, set()):
            return BadLine(number, wrong)
        assert line is not None
        before = line["sha"]
    return None


def last_mark(path: Path) -> Mark | None:
    """The ledger's mark in the last audit line that has one; None if none has."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        start, tail = file.seek(0, os.SEEK_END), b""
        while start > 0:
            size = min(_BLOCK, start)
            start -= size
            file.seek(start)
            tail = file.read(size) + tail
            begin = 0 if start == 0 else tail.find(b"\n") + 1
            for raw in reversed(tail[begin:].split(b"\n")):
                if _MARK in raw and (line := parse_line(raw)):
                    return Mark(**line["facts"]["ledger"])
            tail = tail[:begin]
    return None
