"""The run folder: the single source of truth about a run. MLflow, tables and resume all read it.

```
config.json  rows.json  partition.npz  partition.json   fixed at the start
journal.jsonl      one line per step started or done (for people to read)
steps/0003.safetensors   what a finished Query or ServerWork returned
checkpoint.safetensors   weights, aggregator, counters; replaced atomically
checkpoint.before.safetensors   the one before, in case the last one is damaged
seal.json          hashes of the other files, which readers check (see `fedimb.rundir.seal`)
metrics.jsonl      one line per row and round, written with the checkpoint
arrivals.jsonl  arrivals/   replies of a run at sites without rounds, as they came (`fedimb.rundir.arrival_journal`)
clients/           the clients' own state (simulation)
result.json        summary metrics, once finished
status.json        running | waiting | failed | finished
artifacts/         pictures, confusion matrices, the model
```
"""

import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedimb.atomic import named_errors, write_atomic
from fedimb.errors import FedimbError
from fedimb.plain import JsonObject
from fedimb.rundir.seal import (
    CHECKPOINT,
    CHECKPOINT_BEFORE,
    SEAL,
    Damaged,
    Manifest,
    check_growing,
    links_below,
    own_hash_fits,
    read_seal,
    what_to_do,
    with_own_hash,
    write_seal,
)

_OWN_HASH = ("status.json", "processes.json")
"""Files that change at any time, between two seals: each holds its own hash."""
_LOCK_WAIT_S = 1.0


class RunFolder:
    """One run's folder.

    Args:
        path: an existing folder (see `create`).
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute()
        self._lock: int | None = None

    @classmethod
    def create(cls, parent: Path, name: str) -> "RunFolder":
        """Create a folder ``<parent>/<name>``, or ``<name>-2``, ... if that exists."""
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 10_000):
            path = parent / (name if attempt == 1 else f"{name}-{attempt}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return cls(path)
        raise FedimbError(f"{parent} holds 10,000 runs called {name}; use another study or output_dir")

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open an existing run.

        Raises:
            FedimbError: the folder is not a run folder.
            Damaged: there is a link in it.
        """
        folder = cls(path)
        if not (folder.path / "config.json").is_file():
            raise FedimbError(f"{path} is not a run folder: it has no config.json")
        folder.refuse_links()
        return folder

    @property
    def is_deployed(self) -> bool:
        """Whether the run belongs to a deployment, whose sites keep their clients' states themselves."""
        return (self.path / "deployed.json").is_file()

    def refuse_links(self) -> None:
        """Raise Damaged if there is a symbolic link in the folder: what it points to is not part of the run.

        Links among the clients' states are refused when a state is read.
        """
        if found := links_below(self.path, skip=("clients",)):
            raise Damaged(
                f"{found[0]} is a link, and links in a run folder are not followed: remove it, or put the file itself "
                "there"
            )

    def lock(self) -> None:
        """Lock the folder until `unlock` or the end of the process; the kernel releases the lock even after kill -9.

        Raises:
            FedimbError: another process is running or resuming this run; says which.
        """
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        give_up = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # It may have been taken a moment ago, with its holder not yet written, or only be asked for.
                holder = _holder(os.pread(handle, 256, 0))
                if holder or time.monotonic() > give_up:
                    os.close(handle)
                    who = holder or "another process"
                    raise FedimbError(f"{self.path} is in use by {who}; wait for it or end it") from None
                time.sleep(0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} {socket.gethostname()}".encode(), 0)
        self._lock = handle

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def seal(self) -> Manifest | None:
        """The manifest as it is on disk now; None for a run of fedimb 0.1.

        Raises:
            Damaged: it is damaged, or missing though the run was sealed.
        """
        found = read_seal(self.path)
        if found is None and self._was_sealed():
            raise Damaged(
                f"{self.path / SEAL} is missing: nothing in the folder can be checked; restore it from a copy, or "
                f"write it again from the checkpoint with fedimb run --resume {self.path}"
            )
        return found

    def _was_sealed(self) -> bool:
        later = ("rows.json", CHECKPOINT, CHECKPOINT_BEFORE, "result.json")
        if not any((self.path / name).exists() for name in later):  # written after the seal: it was killed before
            return False
        try:
            return bool(json.loads((self.path / "environment.json").read_bytes()).get("sealed", False))
        except (OSError, ValueError, AttributeError):
            return False

    def not_sealed(self) -> str:
        """A line for people if the folder has no seal, else ``""``."""
        if self.seal is not None:
            return ""
        return f"{self.path} is not sealed (an older fedimb made it): whether its files were changed cannot be checked"

    def read(self, name: str) -> bytes | None:
        """The content of a file, checked against the seal; None if there is none.

        Raises:
            Damaged: it, or a folder on the way to it, is a link; it is not as it was sealed; or it is missing though
                it was sealed.
        """
        path = self.path
        for part in Path(name).parts:
            path = path / part
            if path.is_symlink():
                raise Damaged(f"{path} is a link, and links in a run folder are not followed: put the file there")
        manifest = self.seal
        try:
            return self._checked(name, manifest)
        except Damaged:
            if self.seal == manifest:
                raise
        return self._checked(name, self.seal)  # a process is working on the run: it wrote both meanwhile

    def _checked(self, name: str, manifest: Manifest | None) -> bytes | None:
        path = self.path / name
        if manifest is not None and name in manifest.growing:
            try:
                return check_growing(path, manifest.growing[name], manifest.ended)
            except Damaged as error:
                raise Damaged(f"{error}: {what_to_do(self.path, name, manifest)}") from None
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            data = None
        if manifest is None or (sha := manifest.files.get(name)) is None:
            return data
        if data is None:
            raise Damaged(f"{path} is missing: {what_to_do(self.path, name, manifest)}")
        if hashlib.sha256(data).hexdigest() != sha:
            raise Damaged(f"{path} was changed since it was written: {what_to_do(self.path, name, manifest)}")
        return data

    def check(self, *names: str) -> None:
        """Check files against the seal. Raises Damaged (see `read`)."""
        for name in names:
            self.read(name)

    def check_sealed(self, *beginnings: str) -> None:
        """Check all sealed files whose names begin in one of these ways (all, if none is given)."""
        if (manifest := self.seal) is not None:
            names = (*manifest.files, *manifest.growing)
            self.check(*(name for name in names if not beginnings or name.startswith(beginnings)))

    def write_json(self, name: str, content: Any) -> None:
        """Write ``<name>`` atomically. A file that is sealed is sealed again."""
        data = with_own_hash(content) if name in _OWN_HASH else (json.dumps(content, indent=1) + "\n").encode()
        manifest = None if name in _OWN_HASH else read_seal(self.path)
        if manifest is None or name not in manifest.files:
            write_atomic(self.path / name, data)
            return
        write_seal(self.path, manifest.without(name))  # so that a kill between the two leaves no false alarm
        write_atomic(self.path / name, data)
        write_seal(self.path, manifest.with_files({name: hashlib.sha256(data).hexdigest()}))

    def read_json(self, name: str, default: Any = None) -> Any:
        """Read a JSON file; returns ``default`` if it does not exist.

        Raises:
            Damaged: see `read`; or it is not JSON, or not of the default's type.
        """
        data = self.read(name)
        if data is None:
            return default
        try:
            content = json.loads(data)
            if default is not None and not isinstance(content, type(default)):
                raise ValueError(f"a {type(content).__name__} where a {type(default).__name__} was expected")
            if name in _OWN_HASH:
                if not isinstance(content, dict) or not own_hash_fits(content):
                    raise ValueError("its content does not have the hash it was written with")
                content.pop("sha256", None)
            return content
        except ValueError as error:
            raise Damaged(f"{self.path / name} is damaged ({error}): {self._without(name)}") from None

    def _without(self, name: str) -> str:
        if name == "processes.json":
            return "make sure that no process of the killed run is left, delete the file, and resume"
        return (
            f"fedimb run --resume {self.path} writes it again"
            if name in ("status.json", "result.json")
            else ("put back a copy of the file from a backup, or start a new run")
        )

    def status(self) -> str:
        """new | running | waiting | failed | killed | finished; ``running`` with a free lock means that it was killed.

        Raises:
            Damaged: ``status.json`` is damaged.
        """
        return str(self.read_json("status.json", {}).get("status", "new"))

    def set_status(self, status: str, reason: str = "", kind: str = "") -> None:
        """Record the status, why, and the class of the error that ended the run."""
        self.write_json("status.json", {"status": status, "reason": reason, "kind": kind, "time": time.time()})

    def artifact(self, name: str, content: bytes) -> None:
        """Write ``artifacts/<name>`` atomically."""
        path = self.path / "artifacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)

    def journal(self, **event: object) -> None:
        """Append one event for people to read; no code reads it."""
        path = self.path / "journal.jsonl"
        with named_errors(path), open(path, "a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")

    def append_metrics(self, lines: list[dict[str, object]]) -> int:
        """Append metric lines durably; returns the file's size in bytes, which the checkpoint records."""
        path = self.path / "metrics.jsonl"
        with named_errors(path), open(path, "ab") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def truncate_metrics(self, size: int) -> None:
        """Remove metric lines that no checkpoint covers."""
        path = self.path / "metrics.jsonl"
        if path.exists() and path.stat().st_size > size:
            os.truncate(path, size)

    def metrics(self) -> list[JsonObject]:
        """All complete metric lines.

        Raises:
            Damaged: what is sealed of them was changed; or a line is not JSON.
        """
        data = self.read("metrics.jsonl") or b""
        try:
            return [json.loads(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]
        except ValueError as error:
            raise Damaged(f"{self.path / 'metrics.jsonl'} is damaged ({error}): start a new run") from None

    def names_of_artifacts(self) -> Sequence[str]:
        """Names of all files below ``artifacts``, relative to the run folder."""
        root = self.path / "artifacts"
        return sorted(str(path.relative_to(self.path)) for path in root.rglob("*") if path.is_file())


def _holder(text: bytes) -> str:
    """``process 12 on this host`` from the content of a lock file; empty if that process is not alive."""
    pid, _, host = text.decode(errors="replace").strip().partition(" ")
    if not pid.isdigit():
        return ""
    if host in ("", socket.gethostname()):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return ""
        except PermissionError:  # another user's: it is alive
            pass
        return f"process {pid}"
    return f"process {pid} on {host}"
