"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file atomically, even across a power cut (fsync before rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with named_errors(path):
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:  # a full disk or Ctrl-C must not leave a partial file behind
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Name the file in an OSError: a failed write or fsync (disk full) does not say which file it was."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
