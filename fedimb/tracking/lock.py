"""A file lock between processes, released by the system when its holder dies."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedimb.errors import FedimbError

_POLL_S = 0.05


class Busy(FedimbError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, wait_s: float) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (created if missing, never deleted: two processes could then both hold it).

    Args:
        path: the lock file; its folder exists.
        wait_s: how long to wait for another holder, in seconds; 0 tries once.

    Raises:
        Busy: another process still holds it after ``wait_s``.
    """
    deadline = time.monotonic() + wait_s
    with path.open("a+b") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Busy(
                        f"another process holds {path} (waited {wait_s:g} s); try again when it is done"
                    ) from None
                time.sleep(_POLL_S)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
