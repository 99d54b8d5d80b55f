"""One version of a registered data set: what was registered, and whether the files still match it.

```
data/sets/heart/current                  which version is in use
data/sets/heart/withdrawn.json           who is excluded from all later versions: keyed hashes, no ids
data/sets/heart/<version>/version.json   name, tags, source settings, facts
data/sets/heart/<version>/records.jsonl  place and keyed hash of every record, but no values
data/sets/heart/<version>/files.json     size, time and SHA-256 of each file, as last verified
```
"""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fedimb.annotation.private import write_private
from fedimb.data.findings.stage import settle
from fedimb.data.store import Store
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data import commitment
from fedimb.deploy.registered_data.commitment import Commitment
from fedimb.deploy.registered_data.source_records import Reading, find_record, read_source
from fedimb.deploy.registered_data.withdrawn import Entry, read_withdrawn, withdrawn_mask
from fedimb.errors import DataError
from fedimb.plain import JsonObject

_SHOWN = 5
log = logging.getLogger("fedimb")


@dataclass(frozen=True, eq=False)
class DataVersion:
    """One version of a data set.

    Attributes:
        home: the node's folder.
        folder: the version's folder in it.
        about: content of its version.json.
    """

    home: NodeHome
    folder: Path
    about: JsonObject

    @staticmethod
    def load(home: NodeHome, folder: Path) -> "DataVersion":
        """Load the version in ``folder``. Raises DataError if it is missing or damaged."""
        try:
            about = json.loads((folder / "version.json").read_text(encoding="utf-8"))
            if not {"name", "version", "tags", "source", "facts", "withdrawn"} <= set(about):
                raise ValueError("entries are missing")
            return DataVersion(home, folder, about)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder} does not contain a valid version of a data set ({type(error).__name__}); register the "
                "data again: "
                "fedimb node data add"
            ) from error

    @property
    def name(self) -> str:
        """The data set's name."""
        return str(self.about["name"])

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags by which plans select the data set."""
        return tuple(self.about["tags"])

    @property
    def accept(self) -> tuple[str, ...]:
        """Findings that the site accepts (`fedimb.data.findings`); none in versions of earlier releases."""
        return tuple(self.about.get("accept", ()))

    @property
    def version(self) -> str:
        """Hash over name, schema, size and Merkle root (64 hex digits).

        Safe to send: it reveals nothing about records.
        """
        return str(self.about["version"])

    @property
    def facts(self) -> JsonObject:
        """``version``, ``merkle_root``, ``left_out``, ``recordable`` (classes), and the facts of `data_facts`."""
        return {"name": self.name, "version": self.version, **self.about["facts"]}

    def prove(self, text: str, reveal: bool = False) -> dict[str, object]:
        """Verify the data and make the inclusion proof of one record, see `Commitment.prove`.

        Args:
            text: names the record, see `fedimb.deploy.registered_data.source_records.find_record`.
            reveal: whether the proof shows the record itself.
        """
        reading = self.read_verified()
        at = find_record([row.place for row in reading.rows], text)
        named = {"data_set": self.name, "version": self.version}
        return self._commitment.prove(reading, at, named, reveal)

    def open_store(self, attributes: Sequence[str] = ()) -> Store:
        """Open the records as a store in the node's cache; build it from verified files if it is missing.

        Args:
            attributes: columns that a run is scored by (`fedimb.data.subgroups`), read beside the registered values.

        Raises:
            DataError: the files no longer match what was registered, or a withdrawal superseded this version.
        """
        self._refuse_superseded()
        path = self.home.folder("cache", "stores") / self.version
        if attributes:  # not part of the version: another store, for the files as they are
            state = json.dumps([list(attributes), self._files()])
            path = path.with_name(f"{self.version}-{hashlib.sha256(state.encode()).hexdigest()[:16]}")
            if path.exists():
                return Store.open(path)
            data = self.read_without(read_withdrawn(self.home, self.name), attributes).data
            return Store.build(data, path, self.version)
        store = Store.open(path) if path.exists() else Store.build(self.read_verified().data, path, self.version)
        if store.findings is None:
            store.look(self.read_verified().data)
        return store

    def refuse_findings(self) -> None:
        """Raise DataError if something in the data looks wrong that the site does not accept; log the rest once."""
        setting = f"fedimb node data add ... --name {self.name} data.accept"
        settle(self.open_store().findings or (), self.accept, setting)

    def verify(self, full: bool) -> None:
        """Check that the files still contain what was registered.

        Args:
            full: read all records again. False: compare each file's size and modification time, and read all only if
                one differs; a change that affects neither is found by the next full check.

        Raises:
            DataError: names the rows that changed, are new or are gone; or the version was superseded.
        """
        self._refuse_superseded()
        if not full and self._states() == [(one["path"], one["size"], one["mtime_ns"]) for one in self._files()]:
            return
        reading = self.read_verified()
        write_files(self.folder, watched_paths(reading, self.about["source"]))
        self._drop_other_store(reading)

    def read_verified(self) -> Reading:
        """Read the source without withdrawn records. Raises DataError unless all records are as registered."""
        self._refuse_superseded()
        return self.read_without(read_withdrawn(self.home, self.name))

    def read_without(self, entries: Sequence[Entry], attributes: Sequence[str] = ()) -> Reading:
        """Read the source without the listed records. Raises DataError unless the rest is what was registered."""
        try:
            reading = read_source(self.about["source"], attributes)
        except DataError as error:
            raise DataError(f"data set '{self.name}' can no longer be read: {error}") from error
        secret = commitment.site_secret(self.home)
        marks = commitment.mark_records(secret, reading)
        kept = ~withdrawn_mask(reading, marks, entries, secret)
        if not kept.all():
            reading = reading.subset(kept)
        now = [(row.place, mark) for row, mark in zip(reading.rows, np.array(marks)[kept].tolist(), strict=True)]
        if found := list(differences(self.records, now)):
            more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise DataError(
                f"data set '{self.name}' differs from what was registered as {self.version[:12]}: "
                f"{'; '.join(found[:_SHOWN])}{more}; restore the files, or register them as they are now: "
                f"fedimb node data add ... --name {self.name}"
            )
        return reading

    @cached_property
    def records(self) -> list[tuple[str, str]]:
        """(place, keyed hash) of every record. Raises DataError if the list is damaged."""
        try:
            lines = (self.folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
            found = [(str(place), str(mark)) for place, mark in map(json.loads, lines)]
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{self.folder} is damaged ({type(error).__name__}); register the data again") from error
        if len(found) != self.about["facts"]["rows"]:
            raise DataError(f"{self.folder}: lines are missing from records.jsonl; register the data again")
        return found

    @property
    def _commitment(self) -> Commitment:
        return Commitment.over(commitment.site_secret(self.home), self.name, [mark for _, mark in self.records])

    def _refuse_superseded(self) -> None:
        if len(read_withdrawn(self.home, self.name)) != self.about["withdrawn"]:
            raise DataError(
                f"version {self.version[:12]} of data set '{self.name}' contains records that have been withdrawn: "
                "use its current version (see fedimb node data list)"
            )

    def _files(self) -> list[JsonObject]:
        try:
            found: list[dict[str, object]] = json.loads((self.folder / "files.json").read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError):
            return []  # so that every record is read

    def _states(self) -> list[tuple[str, int, int]]:
        return [_state(Path(one["path"])) for one in self._files()]

    def _drop_other_store(self, reading: Reading) -> None:
        """Delete the cached store if it does not contain the records just verified."""
        path = self.home.file("cache", "stores", self.version)
        if not path.exists():
            return
        try:
            store = Store.open(path)
            same = all(
                (mine := getattr(store, name)) is not None and np.array_equal(mine, theirs, equal_nan=name == "x")
                for name in ("x", "y", "sites", "patients", "official_test", "targets")
                if (theirs := getattr(reading.data, name)) is not None
            )
        except DataError:
            same = False
        if not same:
            log.warning("the cache of data set '%s' did not match the files: deleted it", self.name)
            shutil.rmtree(path)


def record_marks(folder: Path) -> set[str]:
    """The marks of a version's records (`commitment.mark_records`): equal records of any data set have equal marks."""
    try:
        lines = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
        return {str(json.loads(line)[1]) for line in lines}
    except (OSError, ValueError, TypeError, IndexError):
        return set()  # a damaged version cannot be used, which is found when it is opened


def differences(registered: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Describe what changed between two lists of (place, keyed hash), one line each; empty if they are equal."""
    before, after = Counter(mark for _, mark in registered), Counter(mark for _, mark in now)
    gone = _beyond(registered, before - after, set(now))
    new = dict.fromkeys(_beyond(now, after - before, set(registered)))
    for place in gone:
        yield f"{place} changed" if place in new else f"{place} is gone"
        new.pop(place, None)
    for place in new:
        yield f"{place} is new"
    if before == after and [mark for _, mark in registered] != [mark for _, mark in now]:
        at = next(place for (_, mark), (place, other) in zip(registered, now, strict=True) if mark != other)
        yield f"the records are in a different order from {at} on"


def _beyond(records: Sequence[tuple[str, str]], count: Counter[str], others: set[tuple[str, str]]) -> list[str]:
    """Places of the surplus records in ``count``.

    Among equal records, those without a twin at their place come first.
    """
    left, found = count.copy(), []
    for record in sorted(records, key=lambda record: record in others):  # stable: in the files' order otherwise
        if left[record[1]] > 0:
            left[record[1]] -= 1
            found.append(record[0])
    return found


def watched_paths(reading: Reading, source: dict[str, object]) -> list[Path]:
    """Files to watch, and folders in which a new file would be a new record."""
    folders = {file.parent for file in reading.files} if source["name"] in ("image_folder", "huggingface") else set()
    return [*reading.files, *sorted(folders)]


def write_files(folder: Path, paths: Sequence[Path]) -> None:
    """Write files.json: size, modification time and SHA-256 of each file."""
    found = []
    for path in paths:
        name, size, time = _state(path)
        sha = None
        if path.is_file():
            with path.open("rb") as file:
                sha = hashlib.file_digest(file, "sha256").hexdigest()
        found.append({"path": name, "size": size, "mtime_ns": time, "sha256": sha})
    write_private(folder / "files.json", json.dumps(found, ensure_ascii=False, indent=1).encode())


def _state(path: Path) -> tuple[str, int, int]:
    """(path, size in bytes, modification time in ns). The size of a folder is 0; both are -1 if the path is missing."""
    try:
        facts = path.stat()
    except OSError:
        return str(path), -1, -1
    return str(path), facts.st_size if path.is_file() else 0, facts.st_mtime_ns
