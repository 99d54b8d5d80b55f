"""A site's private files: mode 0600 from the first byte on, written atomically."""

import contextlib
import os
from pathlib import Path

FILE, FOLDER = 0o600, 0o700


def private_folder(path: Path) -> None:
    """Create a folder with mode 0700 if it is missing; missing parents are created with the default mode."""
    path.mkdir(mode=FOLDER, parents=True, exist_ok=True)


def write_private(path: Path, data: bytes) -> None:
    """Write a file with mode 0600 atomically (temporary file, fsync, rename); its folder must exist."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        # O_EXCL: never write into a file, or through a link, that somebody else created.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
