"""Fingerprints of a source's files: whether the cache still belongs to them."""

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from fedimb.data.paths import find_data
from fedimb.errors import DataError

_SMALL = 1 << 26  # 64 MiB: hashed in a tenth of a second; above it, size and modification time replace the content


def fingerprint(kind: str, paths: Iterable[str], roles: Sequence[object] = ()) -> str:
    """Changes when a file does: sha256 over the files' contents, in order; for a file above 64 MiB its size and mtime.

    Args:
        kind: name and version of the reader: a reader that works differently must not use old caches.
        paths: files as given in the configuration.
        roles: what the rows' meaning takes from the files' names and folders, where the source found the files itself:
            a file moved from train to test is other data.

    Raises:
        DataError: a file is missing, is a folder, or cannot be read.
    """
    digest = hashlib.sha256()
    if roles:
        digest.update(json.dumps(roles).encode())
    for path in paths:
        file = regular_file(path)
        try:
            state = file.stat()
            small = state.st_size <= _SMALL
            content = file.read_bytes() if small else f"{state.st_size} {state.st_mtime_ns}".encode()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        digest.update(hashlib.sha256(content).digest())
    return f"{kind}-{digest.hexdigest()}"


def regular_file(path: str) -> Path:
    """The file that ``path`` refers to (`fedimb.data.paths.find_data`). DataError if it is missing or a folder."""
    file = find_data(path)
    if not file.is_file():
        raise DataError(f"{path} is a folder; give a file")
    return file


_FIRST_S, _EVERY_S = 2.0, 10.0
T = TypeVar("T")


def with_progress(items: Sequence[T], title: str) -> Iterator[T]:
    """``items`` one by one; after two seconds it prints ``title: done/all`` at intervals, and all/all at the end."""
    began = time.monotonic()
    due = began + _FIRST_S
    shown = False

    def show(done: int, now: float) -> None:
        print(f"{title} {done:,}/{len(items):,} ({done / (now - began):,.0f}/s)", file=sys.stderr, flush=True)

    for done, item in enumerate(items):
        now = time.monotonic()
        if now >= due:
            due, shown = now + _EVERY_S, True
            show(done, now)
        yield item
    if shown:
        show(len(items), time.monotonic())
