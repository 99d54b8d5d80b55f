"""Runs that are interrupted in this process, as by Ctrl-C, at a round or a version of a run without rounds."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedimb.serverapp.checkpoint import FolderCheckpointer


@contextlib.contextmanager
def interrupted(version: int, after: bool = False) -> Iterator[None]:
    """The run in this block is interrupted before its ``version``-th round is written down, or after."""
    original, passed = FolderCheckpointer.after_round, []

    def watched(self, *args, **options):
        passed.append(1)
        if len(passed) == version and not after:
            raise KeyboardInterrupt
        original(self, *args, **options)
        if len(passed) == version:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FolderCheckpointer, "after_round", watched)
        with pytest.raises(KeyboardInterrupt):
            yield


def only_run(cwd: Path) -> Path:
    """The folder of the only run that was begun in a folder."""
    (folder,) = [path for path in (cwd / "runs" / "default").iterdir() if path.is_dir()]
    return folder
