"""The chain of a site's audit log: what a line is, and what is wrong with lines not as written."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedimb.errors import DataError
from fedimb.plain import JsonObject

FIRST = "0" * 64
"""What the first line holds as the hash of the one before."""


@dataclass(frozen=True)
class Head:
    """Number (1: the first) and hash of a line; number 0 before any."""

    line: int
    sha: str


@dataclass(frozen=True)
class BadLine:
    """The first line that is not as it was written: its number, and what is wrong."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}"


def read_heads(path: Path) -> list[Head]:
    """What the coordinator kept of a site: JSON lines ``{"line": 7, "sha": "..."}``.

    Raises:
        DataError: no such file, or a line of it is something else.
    """
    try:
        raws = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    heads = []
    for number, raw in enumerate(raws, 1):
        try:
            told = json.loads(raw)
            heads.append(Head(int(told["line"]), str(told["sha"])))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f'{path} line {number} is no {{"line": 7, "sha": "..."}} ({error})') from error
    return heads


def text_of(tree: dict[str, object]) -> bytes:
    return json.dumps(tree, ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":")).encode()


def sha_of(body: dict[str, object]) -> str:
    return hashlib.sha256(text_of(body)).hexdigest()


def parsed_line(raw: bytes) -> JsonObject | None:
    """The line; None where it is none of ours."""
    try:
        line = json.loads(raw)
        if not isinstance(line, dict) or text_of(line) != raw:
            return None
    except ValueError:
        return None
    shape = {"n": int, "at": str, "kind": str, "facts": dict, "before": str, "sha": str}
    return line if {key: type(value) for key, value in line.items()} == shape else None


def fault_of(number: int, line: dict[str, object] | None, before: str, numbers: set[int]) -> str | None:
    if line is None:
        return "is no line of this log: it was edited"
    if line["n"] != number:
        return f"line {line['n']} stands here: lines were {'moved' if number in numbers else 'deleted'}"
    if sha_of({key: value for key, value in line.items() if key != "sha"}) != line["sha"]:
        return "was edited"
    if line["before"] != before:
        return "does not follow the line before it: one of the two was replaced"
    return None


def end_fault(shas: list[str], known: Head, torn: bool) -> BadLine | None:
    count = len(shas) - 1
    if known.line > count:
        return BadLine(count + 1, f"is missing: the end was cut, the log had {known.line} lines")
    if known.sha != shas[known.line]:
        return BadLine(known.line, "is another than the one last written: the log was rewritten")
    if count > known.line + 1 or (torn and count > known.line):
        return BadLine(known.line + 2, "was added by something else")
    return None


def told_fault(shas: list[str], told: Iterable[Head]) -> BadLine | None:
    for head in sorted(told, key=lambda head: head.line):
        if head.line >= len(shas) or shas[head.line] != head.sha:
            return BadLine(head.line, "is not the one the coordinator was told of: the log was rewritten")
    return None
