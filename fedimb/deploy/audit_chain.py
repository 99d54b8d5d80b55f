"""The hash chain of a site's audit log: the format of a line, and how tampering is detected."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedimb.errors import DataError
from fedimb.plain import JsonObject

GENESIS_SHA = "0" * 64
"""The ``before`` hash of the first line, which has no predecessor."""


@dataclass(frozen=True)
class Head:
    """Number and hash of a log line. Lines count from 1; 0 stands for an empty log."""

    line: int
    sha: str


@dataclass(frozen=True)
class BadLine:
    """The first line that is not as it was written: its number and what is wrong with it."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}"


def read_heads(path: Path) -> list[Head]:
    """Read the line hashes the coordinator kept for a site: JSON lines ``{"line": 7, "sha": "..."}``.

    Raises:
        DataError: the file is missing, or one of its lines has another format.
    """
    try:
        raws = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    heads = []
    for number, raw in enumerate(raws, 1):
        try:
            entry = json.loads(raw)
            heads.append(Head(int(entry["line"]), str(entry["sha"])))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f'{path} line {number} is not {{"line": 7, "sha": "..."}} ({error})') from error
    return heads


def canonical_json(tree: dict[str, object]) -> bytes:
    return json.dumps(tree, ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":")).encode()


def line_sha(body: dict[str, object]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()


def parse_line(raw: bytes) -> JsonObject | None:
    """Parse one line of the log; None if it is not a well-formed log line."""
    try:
        line = json.loads(raw)
        if not isinstance(line, dict) or canonical_json(line) != raw:
            return None
    except ValueError:
        return None
    shape = {"n": int, "at": str, "kind": str, "facts": dict, "before": str, "sha": str}
    return line if {key: type(value) for key, value in line.items()} == shape else None


def line_fault(number: int, line: dict[str, object] | None, before: str, numbers: set[int]) -> str | None:
    if line is None:
        return "is not a line of this log: it was edited"
    if line["n"] != number:
        return f"line {line['n']} is here instead: lines were {'moved' if number in numbers else 'deleted'}"
    if line_sha({key: value for key, value in line.items() if key != "sha"}) != line["sha"]:
        return "was edited"
    if line["before"] != before:
        return "does not match the line before it: one of the two was replaced"
    return None


def end_fault(shas: list[str], known: Head, torn: bool) -> BadLine | None:
    count = len(shas) - 1
    if known.line > count:
        return BadLine(count + 1, f"is missing: the end was cut, the log had {known.line} lines")
    if known.sha != shas[known.line]:
        return BadLine(known.line, "is not the line that was last written: the log was rewritten")
    if count > known.line + 1 or (torn and count > known.line):
        return BadLine(known.line + 2, "was added by another program")
    return None


def heads_fault(shas: list[str], heads: Iterable[Head]) -> BadLine | None:
    for head in sorted(heads, key=lambda head: head.line):
        if head.line >= len(shas) or shas[head.line] != head.sha:
            return BadLine(head.line, "is not the line the coordinator was told about: the log was rewritten")
    return None
