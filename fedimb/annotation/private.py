"""Files of a site that nobody but its owner reads: mode 0600 from their first byte on, seen whole or not at all."""

import contextlib
import os
from pathlib import Path

FILE, FOLDER = 0o600, 0o700


def private_folder(path: Path) -> None:
    """Make a folder, 0700, where it is missing; parents that are missing are made too, for all to enter."""
    path.mkdir(mode=FOLDER, parents=True, exist_ok=True)


def write_private(path: Path, data: bytes) -> None:
    """Write a file with mode 0600 by temporary file, fsync and rename; its folder exists."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        # O_EXCL: never into a file, or through a link, that somebody else put there.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
