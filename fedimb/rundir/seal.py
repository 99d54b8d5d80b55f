"""The seal of a run folder: a manifest of hashes, ``seal.json``, that every reader checks what it reads against.

Three kinds of files are sealed: those fixed at the start (configuration, rows, partition, environment) and at the end
(result, artifacts), by the hash of their content; those that only grow (`GROWING`), by size and hash of what was there
when the seal was written; and the last two checkpoints. A checkpoint and a client's state also hold their own hash
(`fedimb.records.is_intact`), and a checkpoint holds the manifest of its time. So it needs no ``seal.json`` to be
trusted, and a process killed between writing the two leaves nothing in doubt.

A run folder of fedimb 0.1 has no seal: its files are read as they are, and readers say so.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedimb.atomic import write_atomic
from fedimb.errors import FedimbError
from fedimb.plain import JsonObject

SEAL = "seal.json"
GROWING = ("metrics.jsonl", "journal.jsonl")
CHECKPOINT, CHECKPOINT_BEFORE = "checkpoint.safetensors", "checkpoint.before.safetensors"
FORMAT = 1


class Damaged(FedimbError):
    """A file of a run folder is not as it was written: names it, and says what can be done."""


@dataclass(frozen=True)
class Prefix:
    """How much of a growing file is sealed: its first ``size`` bytes and their sha256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The hashes of a run folder at one moment.

    Attributes:
        number: 0 at the start; counts checkpoints.
        files: sha256 by name, of files that do not change any more.
        growing: what is sealed of each of `GROWING`.
        checkpoints: the stored hash of each checkpoint file (`fedimb.records.stored_hash`); empty within a checkpoint.
        ended: whether the run has ended and its result is sealed.
        origin: tag of the machine and folder the run was started in (`fedimb.rundir.origin`); empty if not needed.
    """

    number: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    growing: Mapping[str, Prefix] = field(default_factory=dict)
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    ended: bool = False
    origin: str = ""

    def to_json(self) -> JsonObject:
        """As JSON values."""
        return {
            "format": FORMAT,
            "number": self.number,
            "files": dict(self.files),
            "growing": {name: {"size": one.size, "sha256": one.sha256} for name, one in self.growing.items()},
            "checkpoints": dict(self.checkpoints),
            "ended": self.ended,
            "origin": self.origin,
        }

    @classmethod
    def from_json(cls, stored: JsonObject) -> "Manifest":
        """Inverse of `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
        if stored["format"] != FORMAT:
            raise ValueError(f"its format is {stored['format']}, this release of fedimb reads {FORMAT}")
        return cls(
            int(stored["number"]),
            {str(name): str(sha) for name, sha in stored["files"].items()},
            {str(name): Prefix(int(one["size"]), str(one["sha256"])) for name, one in stored["growing"].items()},
            {str(name): str(sha) for name, sha in stored["checkpoints"].items()},
            bool(stored["ended"]),
            str(stored["origin"]),
        )

    def with_files(self, files: Mapping[str, str]) -> "Manifest":
        """The same with further sealed files."""
        return replace(self, files={**self.files, **files})

    def without(self, *beginnings: str) -> "Manifest":
        """The same without the files whose names begin in one of these ways."""
        return replace(self, files={n: sha for n, sha in self.files.items() if not n.startswith(beginnings)})


def with_own_hash(content: JsonObject) -> bytes:
    """A JSON object as bytes, with a field ``sha256`` over the others."""
    text = json.dumps(content, sort_keys=True)
    sha = hashlib.sha256(text.encode()).hexdigest()
    return f'{text[:-1]}, "sha256": "{sha}"}}\n'.encode()


def own_hash_fits(content: JsonObject) -> bool:
    """Whether an object is as `with_own_hash` wrote it; True also for one without a hash (fedimb 0.1)."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True)
    return "sha256" not in content or content["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def read_seal(folder: Path) -> Manifest | None:
    """The manifest of ``seal.json``; None if the folder has none.

    Raises:
        Damaged: it is a link, or not as it was written.
    """
    path = folder / SEAL
    if path.is_symlink():
        raise Damaged(f"{path} is a link, and links in a run folder are not followed: put the file itself there")
    try:
        stored = json.loads(path.read_bytes())
        if not own_hash_fits(stored) or "sha256" not in stored:
            raise ValueError("its content does not have the hash it was written with")
        return Manifest.from_json(stored)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(
            f"{path} is damaged ({type(error).__name__}: {error}): nothing in the folder can be checked against it; "
            f"restore it from a copy, or write it again from the checkpoint with fedimb run --resume {folder}"
        ) from None


def write_seal(folder: Path, manifest: Manifest, durable: bool = False) -> None:
    """Replace ``seal.json`` in one step.

    Args:
        durable: wait until it is on the disk. Not needed with a checkpoint, which holds its manifest itself: that
            would cost some milliseconds per round.
    """
    data = with_own_hash(manifest.to_json())
    if durable:
        write_atomic(folder / SEAL, data)
        return
    temporary = folder / f".{SEAL}.{os.getpid()}.tmp"
    temporary.write_bytes(data)
    os.replace(temporary, folder / SEAL)


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class GrowingFile:
    """Running hash of a file that only grows: each call of `sealed` reads what was added since the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size, self._hash = 0, hashlib.sha256()

    def sealed(self) -> Prefix:
        """What there is now."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._size:  # cut back by a resume
                    self._size, self._hash = 0, hashlib.sha256()
                file.seek(self._size)
                added = file.read()
        except FileNotFoundError:
            added = b""
        self._hash.update(added)
        self._size += len(added)
        return Prefix(self._size, self._hash.hexdigest())


def check_growing(path: Path, sealed: Prefix, whole: bool = False) -> bytes:
    """The content of a growing file. Raises Damaged if what is sealed of it is not there any more.

    Args:
        whole: nothing may follow what is sealed (the run has ended).
    """
    data = path.read_bytes() if path.exists() else b""
    head = data[: sealed.size]
    if len(head) < sealed.size:
        why = "is missing" if not path.exists() else f"has {len(data)} of the {sealed.size} bytes that were sealed"
    elif hashlib.sha256(head).hexdigest() != sealed.sha256:
        why = f"was changed within its first {sealed.size} bytes"
    elif whole and len(data) > sealed.size:
        why = f"has {len(data) - sealed.size} bytes that were added after the run had ended"
    else:
        return data
    raise Damaged(f"{path} {why}")


def links_below(folder: Path, skip: tuple[str, ...] = ()) -> list[Path]:
    """Symbolic links in a folder and its sub-folders; those directly named in ``skip`` are not looked into."""
    found: list[Path] = []
    todo, left_out = [folder], {folder / name for name in skip}
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    found.append(Path(entry.path))
                elif entry.is_dir(follow_symlinks=False) and Path(entry.path) not in left_out:
                    todo.append(Path(entry.path))
    return sorted(found)


def what_to_do(folder: Path, name: str, manifest: Manifest) -> str:
    """What can be done about a damaged or missing file: the end of an error message."""
    resume = f"fedimb run --resume {folder}"
    if name == "result.json" or name.startswith("artifacts/"):
        return f"{resume} writes it again from the checkpoint"
    copy = folder / "artifacts" / name
    if (sha := manifest.files.get(name)) and copy.is_file() and not copy.is_symlink() and sha256_of(copy) == sha:
        changed = _differences(copy, folder / name) if name.endswith(".json") else ""
        return f"{changed}{copy} is the file as it was: copy it back, or start a new run"
    if name.startswith("steps/") or name in (*GROWING, CHECKPOINT):
        return f"{resume} continues from the last checkpoint that does not need the damaged part, if there is one"
    return "put back a copy of the file from a backup, or start a new run"


def _differences(before: Path, now: Path) -> str:
    """``seed: 0 -> 1; `` for each changed entry of two JSON objects (at most three); empty if they cannot be read."""
    try:
        old, new = (_flat(json.loads(path.read_bytes()), "") for path in (before, now))
    except (OSError, ValueError):
        return ""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    shown = [f"{key}: {old.get(key, 'nothing')} -> {new.get(key, 'nothing')}" for key in keys[:3]]
    return f"({', '.join(shown)}{', ...' if len(keys) > 3 else ''}) " if shown else ""


def _flat(node: object, key: str) -> dict[str, object]:
    if not isinstance(node, dict):
        return {key: node}
    return {k: v for name, one in node.items() for k, v in _flat(one, f"{key}.{name}" if key else str(name)).items()}
