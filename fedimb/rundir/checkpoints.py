"""The last two checkpoints of a run folder, written together with its seal, and the newest of them that can be used.

Order of writing: metric lines, new checkpoint under another name, last checkpoint becomes the one before, new one takes
its place, ``seal.json``. After a kill between any two of these the folder holds a checkpoint that fits the rest.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fedimb.atomic import write_atomic
from fedimb.errors import FedimbError
from fedimb.plain import JsonObject
from fedimb.records import Arrays, pack_arrays, stored_hash, unpack_arrays
from fedimb.rundir.arrival_journal import FILE as ARRIVALS
from fedimb.rundir.arrival_journal import RECORDED
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.seal import (
    CHECKPOINT,
    CHECKPOINT_BEFORE,
    GROWING,
    Damaged,
    GrowingFile,
    Manifest,
    Prefix,
    check_growing,
    sha256_of,
    write_seal,
)

log = logging.getLogger("fedimb")

FIXED = (
    *("config.json", "partition.npz", "partition.json", "environment.json", "rows.json", "identity.json"),
    *("artifacts/config.json", "artifacts/partition.json", "artifacts/environment.json"),
    *("plan.json", "deployed.json"),  # of a deployment
    RECORDED,  # the arrivals that a run repeats
)
"""What is written at the start, where it is there."""

WITH_END = ("rows.json", "identity.json")
"""Those of `FIXED` to which the end of a run adds what it imported meanwhile; no checkpoint builds on them."""

_NEXT, _UNUSABLE = "checkpoint.next.safetensors", "checkpoint.damaged.safetensors"
CheckStates = Callable[[Mapping[int, int]], None]
"""Function that raises FedimbError if a client's state, version by client id, cannot be loaded."""


def rewrite_seal(folder: RunFolder) -> None:
    """If ``seal.json`` is damaged or missing though the run was sealed, write it again from the newest checkpoint.

    The result is not sealed then, and has to be written again.

    Raises:
        Damaged: there is no intact checkpoint.
    """
    try:
        _ = folder.seal
    except Damaged as error:
        for name in (CHECKPOINT, CHECKPOINT_BEFORE):
            with contextlib.suppress(FedimbError, OSError, KeyError, ValueError, TypeError):
                _, info = unpack_arrays((folder.path / name).read_bytes())
                now = {n: sha256_of(folder.path / n) for n in WITH_END if (folder.path / n).is_file()}
                write_seal(folder.path, Manifest.from_json(info["sealed"]).with_files(now))
                log.warning("%s: written again from %s", error, name)
                return
        raise


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that fits its run folder.

    Attributes:
        arrays, info: its content.
        manifest: of the moment it was written; None if fedimb 0.1 wrote it.
        skipped: why newer ones cannot be used; empty if this is the newest.
    """

    arrays: Arrays
    info: JsonObject
    manifest: Manifest | None
    skipped: tuple[str, ...] = ()


def fixed_hashes(folder: Path) -> dict[str, str]:
    """sha256 of the files of `FIXED` that are there."""
    return {name: sha256_of(folder / name) for name in FIXED if (folder / name).is_file()}


class Checkpoints:
    """Writes and finds the checkpoints of a run folder whose lock is held.

    Args:
        folder: the run folder.
        check_states: see `CheckStates`.
    """

    def __init__(self, folder: RunFolder, check_states: CheckStates) -> None:
        self.folder, self._check_states = folder, check_states
        self._growing = {name: GrowingFile(folder.path / name) for name in GROWING}
        self._manifest = Manifest()
        self._work = (-1, -1)

    def seal_file(self, name: str, sha256: str) -> None:
        """Add a file that does not change any more to the next seal."""
        self._manifest = self._manifest.with_files({name: sha256})

    def write(self, arrays: Arrays, info: JsonObject) -> None:
        """Write a checkpoint and the seal; the last checkpoint becomes the one before.

        Unless nothing was computed since: the end of a step follows its last round at once, and a checkpoint before
        that builds on the same states and metric lines would be no help if one of them is damaged.
        """
        path, work = self.folder.path, _work(info)
        kept = CHECKPOINT_BEFORE if work == self._work else CHECKPOINT
        before = self._manifest.checkpoints.get(kept)
        manifest = replace(
            self._manifest, number=self._manifest.number + 1, growing=self._sealed(), checkpoints={}, ended=False
        )
        data = pack_arrays(arrays, info | {"sealed": manifest.to_json()})
        write_atomic(path / _NEXT, data)
        if kept == CHECKPOINT and (path / CHECKPOINT).exists():
            os.replace(path / CHECKPOINT, path / CHECKPOINT_BEFORE)
        os.replace(path / _NEXT, path / CHECKPOINT)
        hashes = {CHECKPOINT: stored_hash(data) or ""} | ({CHECKPOINT_BEFORE: before} if before else {})
        self._manifest, self._work = replace(manifest, checkpoints=hashes), work
        write_seal(path, self._manifest)

    def seal_end(self) -> None:
        """Seal the result and the artifacts of a run that has ended, and the arrivals that it is made of."""
        names = ["result.json", *self.folder.names_of_artifacts()]
        names += [name for name in (*WITH_END, ARRIVALS) if (self.folder.path / name).exists()]
        files = {name: sha256_of(self.folder.path / name) for name in names}
        self._manifest = replace(self._manifest.with_files(files), growing=self._sealed(), ended=True)
        write_seal(self.folder.path, self._manifest, durable=True)

    def _sealed(self) -> dict[str, Prefix]:
        return {name: file.sealed() for name, file in self._growing.items()}

    def restore(self) -> SavedCheckpoint | None:
        """The newest checkpoint that can be used, which the folder is set back to; None if the run has none yet.

        Raises:
            Damaged: there are checkpoints, but none of them can be used; says why for each.
        """
        sealed = self.folder.seal
        found = self._newest(sealed)
        if found is None:
            self._manifest = sealed or Manifest(files=fixed_hashes(self.folder.path))
            return None
        self._work = _work(found.info)
        if found.manifest is None:
            self._manifest = Manifest(files=self._files_of_unsealed())
            self.folder.journal(event="sealed from here on", why="the run was started by an older fedimb")
            log.warning("%s is sealed from here on; what an older fedimb wrote cannot be checked", self.folder.path)
            return found
        now = {} if sealed is None else {n: sha for n, sha in sealed.files.items() if n in WITH_END}
        self._manifest = found.manifest.with_files(now)
        if found.skipped:
            self._fall_back(found.skipped)
        elif sealed is not None and sealed.number == self._manifest.number:
            self._manifest = replace(self._manifest, checkpoints=sealed.checkpoints)
        write_seal(self.folder.path, self._manifest)  # before metric lines are removed
        return found

    def newest(self) -> SavedCheckpoint | None:
        """What `restore` would use; the folder stays as it is. Raises as `restore`."""
        return self._newest(self.folder.seal)

    def _newest(self, sealed: Manifest | None) -> SavedCheckpoint | None:
        problems: list[str] = []
        for name in (CHECKPOINT, CHECKPOINT_BEFORE):
            if not (self.folder.path / name).exists():
                continue
            try:
                return replace(self._read(name, sealed is not None), skipped=tuple(problems))
            except FedimbError as error:
                problems.append(str(error))
        if problems:
            raise Damaged(
                f"{'; '.join(problems)}: neither checkpoint of {self.folder.path} can be used: put back a copy of the "
                "damaged file from a backup, or start a new run"
            )
        if sealed is not None and sealed.number != 0:
            raise Damaged(
                f"{self.folder.path / CHECKPOINT} is missing, and so is the one before: put back a copy from a backup, "
                "or start a new run"
            )
        return None

    def _read(self, name: str, must_be_sealed: bool) -> SavedCheckpoint:
        """Read one checkpoint and check all that it builds on. Raises FedimbError if it cannot be used."""
        path = self.folder.path / name
        try:
            arrays, info = unpack_arrays(path.read_bytes())
        except FedimbError as error:
            raise Damaged(f"{path} is damaged ({error})") from None
        if "sealed" not in info:
            if must_be_sealed:
                raise Damaged(f"{path} is not sealed, and the run is: it is not a checkpoint of this run")
            return SavedCheckpoint(arrays, info, None)
        manifest = Manifest.from_json(info["sealed"])
        for file, sha in manifest.files.items():
            if file in WITH_END:
                continue
            place = self.folder.path / file
            if not place.is_file():
                raise Damaged(f"{place} is missing, which {name} builds on")
            if sha256_of(place) != sha:
                raise Damaged(f"{place} is not the file that {name} builds on: it was changed")
        check_growing(self.folder.path / "metrics.jsonl", manifest.growing["metrics.jsonl"])
        self._check_states({int(client): int(version) for client, version in info["versions"].items()})
        self._check_journal(manifest)
        return SavedCheckpoint(arrays, info, manifest)

    def _check_journal(self, manifest: Manifest) -> None:
        """Nothing is computed from the journal: a changed one is said, and the run goes on."""
        try:
            check_growing(self.folder.path / "journal.jsonl", manifest.growing["journal.jsonl"])
        except Damaged as error:
            log.warning("%s; no result depends on it, so the run continues", error)
            self.folder.journal(event="journal damaged", why=str(error))

    def fall_back(self, why: str) -> str:
        """Put the last checkpoint aside, as something it builds on is lost; returns what a resume does, in words."""
        if not (self.folder.path / CHECKPOINT_BEFORE).exists():
            return "put it back from a backup, or start a new run"
        self._fall_back((why,))
        return "a resume continues from the checkpoint before the last one"

    def _fall_back(self, problems: tuple[str, ...]) -> None:
        """Continue from the checkpoint before, and put the last one aside."""
        path = self.folder.path
        os.replace(path / CHECKPOINT, path / _UNUSABLE)
        os.replace(path / CHECKPOINT_BEFORE, path / CHECKPOINT)
        why = "; ".join(problems)
        log.warning("%s: continuing from the checkpoint before; the last one is kept as %s", why, _UNUSABLE)
        self.folder.journal(event="checkpoint before", why=why)

    def _files_of_unsealed(self) -> dict[str, str]:
        steps = sorted((self.folder.path / "steps").glob("[0-9]*.safetensors"))
        return fixed_hashes(self.folder.path) | {f"steps/{step.name}": sha256_of(step) for step in steps}


def _work(info: JsonObject) -> tuple[int, int]:
    """What a checkpoint covers: messages to clients, and bytes of metric lines."""
    return int(info["message"]), int(info["metrics_size"])
