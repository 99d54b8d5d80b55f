"""``tracking.json``: how much of a run folder has been sent, and the reader of the lines that have not.

`offset` is the byte of metrics.jsonl up to which MLflow has confirmed. `reached` is the byte up to which lines may have
been sent, recorded *before* sending, with the hash of the file so far. If the first `reached` bytes of the file no
longer have that hash, the file was truncated and rewritten (by a resume): timestamps differ, so MLflow would keep both
points; therefore steps up to `check_to_step` are first looked up in its history.
"""

import hashlib
import json
import os
import uuid
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from fedimb.rundir.seal import own_hash_fits, with_own_hash

STATE_FILE = "tracking.json"
IDENTITY_FILE = "tracking.id"
METRICS_FILE = "metrics.jsonl"
EVERY_STEP = 2**62
_EMPTY = hashlib.sha256().hexdigest()


@dataclass
class State:
    """The contents of ``tracking.json``; see the module's docstring."""

    uri: str = ""
    experiment: str = ""
    runs: dict[str, str] = field(default_factory=dict)  # row label -> MLflow run id
    described: list[str] = field(default_factory=list)  # rows whose parameters and tags are in MLflow
    offset: int = 0
    reached: int = 0
    reached_sha256: str = _EMPTY
    top_step: int = -1  # largest step that may have been sent
    check_to_step: int = -1  # steps up to here are looked up before they are sent
    status: str = ""  # of status.json, as last sent
    artifacts: dict[str, str] = field(default_factory=dict)  # row label -> digest of what was uploaded
    named: list[str] = field(default_factory=list)  # rows whose runs have their name and setting; not kept by 0.1

    def forget(self) -> None:
        """Reset, because nothing is in MLflow: it is another store, or its database was removed."""
        fresh = State(uri=self.uri, experiment=self.experiment)
        for item in fields(State):
            setattr(self, item.name, getattr(fresh, item.name))


def load(folder: Path) -> State | None:
    """Read the recorded state; None if there is none or it is damaged (runs are then found by their tag)."""
    try:
        stored = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if not own_hash_fits(stored):
            return None
        stored.setdefault("named", [])
        return State(**{item.name: stored[item.name] for item in fields(State)})
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save(folder: Path, state: State) -> None:
    """Write ``tracking.json`` atomically (temporary file, rename). The caller holds the lock."""
    temporary = folder / f".{STATE_FILE}.new"
    temporary.write_bytes(with_own_hash(asdict(state)))
    os.replace(temporary, folder / STATE_FILE)


def identity(folder: Path) -> str:
    """The folder's id, created on first use. The caller holds the lock on the same file.

    It outlives ``tracking.json`` and moves with the folder: a path could mean another run after `rm -r`.
    """
    path = folder / IDENTITY_FILE
    known = path.read_text(encoding="ascii").strip() if path.exists() else ""
    if not known:
        known = uuid.uuid4().hex
        path.write_text(known, encoding="ascii")  # in place: the lock is on this file
    return known


class MetricsReader:
    """Reads the lines beyond the recorded offset, and detects a rewritten file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS_FILE
        self._at = -1  # byte the running hash stands at
        self._hash = hashlib.sha256()

    def pending(self, state: State) -> list[bytes]:
        """Complete lines not confirmed yet; ``state`` is reset to the start if the file was rewritten.

        The caller saves ``state`` before sending the lines, and calls `confirm` after.
        """
        if not self.path.exists():
            return []
        with self.path.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            if self._at != state.offset or size < state.reached:
                handle.seek(0)
                self._hash = hashlib.sha256(handle.read(state.offset))
                whole = self._hash.copy()
                whole.update(handle.read(state.reached - state.offset))
                if size < state.reached or whole.hexdigest() != state.reached_sha256:
                    state.check_to_step = max(state.check_to_step, state.top_step)
                    state.offset, self._hash = 0, hashlib.sha256()
                self._at = state.offset
            handle.seek(state.offset)
            body = handle.read()
        body = body[: body.rfind(b"\n") + 1]  # an unterminated tail belongs to a busy writer
        reached = self._hash.copy()
        reached.update(body)
        state.reached, state.reached_sha256 = state.offset + len(body), reached.hexdigest()
        return body.splitlines(keepends=True)

    def confirm(self, state: State, lines: list[bytes]) -> None:
        """Record that MLflow accepted these lines, the next ones after ``state.offset``."""
        for line in lines:
            self._hash.update(line)
            state.offset += len(line)
        self._at = state.offset

    def rewind(self) -> None:
        """Forget the running hash: the next `pending` checks the file from its beginning."""
        self._at = -1
