"""The run folder: the single source of truth about a run. MLflow, tables and resume all read it.

```
config.json  rows.json  partition.npz  partition.json   fixed at the start
journal.jsonl      one line per step started or done (for people to read)
steps/0003.safetensors   what a finished Query or ServerWork returned
checkpoint.safetensors   weights, aggregator, counters; replaced atomically
metrics.jsonl      one line per row and round, written with the checkpoint
clients/           the clients' own state (simulation)
result.json        summary metrics, once finished
status.json        running | waiting | failed | finished
artifacts/         pictures, confusion matrices, the model
```
"""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from fedimb.errors import FedimbError
from fedimb.plain import JsonObject
from fedimb.records import named_errors, write_atomic


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
        """Open an existing run. Raises FedimbError if the folder is not a run folder."""
        folder = cls(path)
        if not (folder.path / "config.json").is_file():
            raise FedimbError(f"{path} is not a run folder: it has no config.json")
        return folder

    def lock(self) -> None:
        """Lock the folder until `unlock` or the end of the process; the kernel releases the lock even after kill -9.

        Raises:
            FedimbError: another process is running or resuming this run.
        """
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise FedimbError(f"{self.path} is in use by process {holder}; wait for it or end it") from None
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        self._lock = handle

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write_json(self, name: str, content: Any) -> None:
        """Write ``<name>`` atomically."""
        write_atomic(self.path / name, (json.dumps(content, indent=1) + "\n").encode())

    def read_json(self, name: str, default: Any = None) -> Any:
        """Read a JSON file; returns ``default`` if it does not exist."""
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return default

    def status(self) -> str:
        """running | waiting | failed | finished; ``running`` while nobody holds the lock means that it was killed."""
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
        """All complete metric lines."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
