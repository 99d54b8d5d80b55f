"""Progress lines on stderr while files are read."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

_FIRST_S, _EVERY_S = 2.0, 10.0
T = TypeVar("T")


def with_progress(items: Sequence[T], title: str) -> Iterator[T]:
    """``items`` one by one; after two seconds it prints ``title: done/all`` at intervals."""
    began = time.monotonic()
    due = began + _FIRST_S
    for done, item in enumerate(items):
        now = time.monotonic()
        if now >= due:
            due = now + _EVERY_S
            print(f"{title} {done:,}/{len(items):,} ({done / (now - began):,.0f}/s)", file=sys.stderr, flush=True)
        yield item
