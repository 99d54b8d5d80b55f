"""Client state: a small store on disk, the same in simulation and at a node.

State is keyed by (federation, run id, site) and versioned by the message that wrote it. Each message names the version
it builds on, so a run resumed from a checkpoint finds the state that belongs to that checkpoint, whatever was written
later. Files are written to a temporary name and then renamed.
"""

import contextlib
from pathlib import Path
from typing import Any

from flwr.app import Array, RecordDict

from fedimb.errors import FedimbError
from fedimb.records import pack, unpack, write_atomic

LOST = 1302
"""Error code of the reply of a client that lacks the requested version (``state_lost``)."""


class StateLost(FedimbError):
    """The requested version is missing: the disk was wiped, or the run folder was moved without its state."""


class StateStore:
    """State of the clients of one run, in one folder.

    Args:
        root: ``<somewhere>/<federation>/<run id>``; created on first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def _file(self, client: int, version: int) -> Path:
        return self.root / f"client-{client:06d}" / f"v{version:09d}.safetensors"

    def load(self, client: int, version: int) -> RecordDict:
        """The state as written by message ``version``; version 0 is the empty state every client starts with.

        Raises:
            StateLost: that version is not on disk, or is damaged.
        """
        if version == 0:
            return RecordDict()
        path = self._file(client, version)
        try:
            return unpack(path.read_bytes())
        except FileNotFoundError:
            raise StateLost(f"state_lost: client {client} has no state of version {version} ({path})") from None
        except FedimbError as error:  # a damaged version counts as missing
            raise StateLost(f"state_lost: client {client}, version {version} ({path}): {error}") from error

    def save(self, client: int, version: int, state: RecordDict, keep: tuple[int, ...]) -> None:
        """Write a version, then drop every other version not in ``keep`` (what a checkpoint may still name)."""
        path = self._file(client, version)
        write_atomic(path, pack(state))
        kept = {self._file(client, v).name for v in keep} | {path.name}
        for old in path.parent.glob("v*.safetensors"):
            if old.name not in kept:
                with contextlib.suppress(FileNotFoundError):
                    old.unlink()


def fingerprint(state: RecordDict) -> tuple[Any, ...]:
    """A cheap value that changes when the content of a state does (array bytes are hashed by Python)."""
    return tuple(
        (name, key, hash(value.data) if isinstance(value, Array) else repr(value))
        for name, record in state.items()
        for key, value in record.items()
    )
