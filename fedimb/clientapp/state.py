"""Client state: a small store on disk, the same in simulation and at a node.

State is keyed by (federation, run id, site) and versioned by the message that wrote it. Each message names the version
it builds on, so a run resumed from a checkpoint finds the state that belongs to that checkpoint, whatever was written
later. Files are written to a temporary name and then renamed.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from flwr.app import Array, RecordDict

from fedimb.atomic import write_atomic
from fedimb.errors import FedimbError
from fedimb.records import is_intact, note_of, pack, unpack

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
        return self.folder(client) / f"v{version:09d}.safetensors"

    def folder(self, client: int) -> Path:
        """The folder of a client, which nothing of leaves."""
        return self.root / f"client-{client:06d}"

    def load(self, client: int, version: int) -> RecordDict:
        """The state as written by message ``version``; version 0 is the empty state every client starts with.

        Raises:
            StateLost: that version is not on disk, is damaged, or is a link.
        """
        if version == 0:
            return RecordDict()
        try:
            return unpack(self._bytes(client, version))
        except FedimbError as error:  # a damaged version counts as missing
            if isinstance(error, StateLost):
                raise
            place = self._file(client, version)
            raise StateLost(f"state_lost: client {client}, version {version} ({place}): {error}") from error

    def check(self, client: int, version: int) -> None:
        """Raise StateLost if `load` would."""
        self.load(client, version)

    def _bytes(self, client: int, version: int) -> bytes:
        path = self._file(client, version)
        lost = f"state_lost: client {client}, version {version} ({path})"
        if os.path.islink(path) or os.path.islink(path.parent):
            raise StateLost(f"{lost}: it is a link, and links in a run folder are not followed")
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise StateLost(f"state_lost: client {client} has no state of version {version} ({path})") from None
        if is_intact(data) is False:
            raise StateLost(f"{lost} is damaged: its content does not have the hash it was written with")
        if (written := self._note(data)) and (written["client"], written["version"]) != (client, version):
            raise StateLost(f"{lost} is the state of client {written['client']}, version {written['version']}")
        return data

    @staticmethod
    def _note(data: bytes) -> dict[str, int]:
        """``client``, ``version`` and ``checkpoint`` of a state; empty for one that fedimb 0.1 wrote, or damaged."""
        try:
            found = note_of(data)
            return {} if found is None else {key: int(value) for key, value in json.loads(found).items()}
        except (ValueError, KeyError, TypeError):
            return {}

    def save(self, client: int, version: int, state: RecordDict, keep: tuple[int, ...]) -> None:
        """Write a version, then drop those that neither of the last two checkpoints names.

        Args:
            keep: the last checkpoint's version first, then others to keep (the one this message builds on).
        """
        path = self._file(client, version)
        last = keep[0]
        note = json.dumps({"client": client, "version": version, "checkpoint": last})
        write_atomic(path, pack(state, note))
        kept = {self._file(client, v).name for v in (*keep, self._before(client, last))} | {path.name}
        for old in path.parent.glob("v*.safetensors"):
            if old.name not in kept:
                with contextlib.suppress(FileNotFoundError):
                    old.unlink()

    def _before(self, client: int, last: int) -> int:
        """The client's version at the checkpoint before the one that names ``last``.

        If the client's state changed between the two, ``last`` was written between them, and so says which version was
        the checkpoint's at that time; if it did not change, the version is ``last`` itself, and one more is kept.
        """
        path = self._file(client, last)
        if last == 0 or not path.exists():
            return 0
        with path.open("rb") as file:
            head = file.read(8)
            return self._note(head + file.read(int.from_bytes(head, "little"))).get("checkpoint", 0)


def fingerprint(state: RecordDict) -> tuple[Any, ...]:
    """A cheap value that changes when the content of a state does (array bytes are hashed by Python)."""
    return tuple(
        (name, key, hash(value.data) if isinstance(value, Array) else repr(value))
        for name, record in state.items()
        for key, value in record.items()
    )
