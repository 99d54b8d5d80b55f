"""One version of a registered data set: what was registered, and whether it still is.

```
data/sets/heart/current                  which version is in use
data/sets/heart/withdrawn.json           who is left out of every version from now on: keyed hashes, no ids
data/sets/heart/<version>/version.json   name, tags, source settings, facts
data/sets/heart/<version>/records.jsonl  place and keyed hash of every record; no record
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
from fedimb.data.store import Store
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data import commitment
from fedimb.deploy.registered_data.commitment import Commitment
from fedimb.deploy.registered_data.source_records import Reading, matching, read
from fedimb.deploy.registered_data.withdrawn import Entry, left_out, withdrawn
from fedimb.errors import DataError
from fedimb.plain import JsonObject

_SHOWN = 5
log = logging.getLogger("fedimb")


@dataclass(frozen=True, eq=False)
class DataVersion:
    """A version in ``folder`` of a node's ``home``; ``about`` is its version.json."""

    home: NodeHome
    folder: Path
    about: JsonObject

    @staticmethod
    def load(home: NodeHome, folder: Path) -> "DataVersion":
        """The version in ``folder``. DataError where it is missing or damaged."""
        try:
            about = json.loads((folder / "version.json").read_text(encoding="utf-8"))
            if not {"name", "version", "tags", "source", "facts", "withdrawn"} <= set(about):
                raise ValueError("entries are missing")
            return DataVersion(home, folder, about)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder} holds no version of a data set ({type(error).__name__}); register the data again: "
                "fedimb node data add"
            ) from error

    @property
    def name(self) -> str:
        """The data set's name."""
        return str(self.about["name"])

    @property
    def tags(self) -> tuple[str, ...]:
        """What plans may ask for."""
        return tuple(self.about["tags"])

    @property
    def version(self) -> str:
        """64 hex digits over name, schema, size and Merkle root; may travel: it tells nobody about a record."""
        return str(self.about["version"])

    @property
    def facts(self) -> JsonObject:
        """``version``, ``merkle_root``, ``left_out``, ``recordable`` (classes), and what `data_facts` counts."""
        return {"name": self.name, "version": self.version, **self.about["facts"]}

    def prove(self, text: str, opened: bool = False) -> dict[str, object]:
        """The inclusion proof of one record, see `Commitment.prove`; the data are verified before.

        Args:
            text: the record, see `fedimb.deploy.registered_data.source_records.matching`.
            opened: whether the proof shows the record itself.
        """
        reading = self.checked()
        at = matching([row.place for row in reading.rows], text)
        named = {"data_set": self.name, "version": self.version}
        return self._commitment.prove(reading, at, named, opened)

    def open_store(self) -> Store:
        """The records as a store in the node's cache, built from verified files where it is not there.

        Raises:
            DataError: the files are no longer what was registered, or the version was superseded by a withdrawal.
        """
        self._refuse_superseded()
        path = self.home.folder("cache", "stores") / self.version
        return Store.open(path) if path.exists() else Store.build(self.checked().data, path, self.version)

    def verify(self, full: bool) -> None:
        """Raise unless the files still hold what was registered.

        Args:
            full: read every record again. False: compare each file's size and time of change, and read only where they
                differ. A file changed without a trace in both is found by the next full check.

        Raises:
            DataError: names each file and row that changed, is new or is gone; or the version was superseded.
        """
        self._refuse_superseded()
        if not full and self._states() == [(one["path"], one["size"], one["mtime_ns"]) for one in self._files()]:
            return
        reading = self.checked()
        write_files(self.folder, watched(reading, self.about["source"]))
        self._drop_other_store(reading)

    def checked(self) -> Reading:
        """Read the source again, without those withdrawn. DataError unless every record is the registered one."""
        self._refuse_superseded()
        return self.matched(withdrawn(self.home, self.name))

    def matched(self, entries: Sequence[Entry]) -> Reading:
        """Read the source again without those on the list; DataError unless that is what was registered."""
        try:
            reading = read(self.about["source"])
        except DataError as error:
            raise DataError(f"data set '{self.name}' cannot be read any more: {error}") from error
        secret = commitment.site_secret(self.home)
        marks = commitment.marks(secret, reading)
        kept = ~left_out(reading, marks, entries, secret)
        if not kept.all():
            reading = reading.subset(kept)
        now = [(row.place, mark) for row, mark in zip(reading.rows, np.array(marks)[kept].tolist(), strict=True)]
        if found := list(differences(self.records, now)):
            more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise DataError(
                f"data set '{self.name}' is not what was registered as {self.version[:12]}: "
                f"{'; '.join(found[:_SHOWN])}{more}. Restore the files, or register them as they are now: "
                f"fedimb node data add ... --name {self.name}"
            )
        return reading

    @cached_property
    def records(self) -> list[tuple[str, str]]:
        """(place, keyed hash) of every record. DataError where the list is not the version's."""
        try:
            lines = (self.folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
            found = [(str(place), str(mark)) for place, mark in map(json.loads, lines)]
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{self.folder} is damaged ({type(error).__name__}); register the data again") from error
        if len(found) != self.about["facts"]["rows"]:
            raise DataError(f"{self.folder}: records.jsonl has lost lines; register the data again")
        return found

    @property
    def _commitment(self) -> Commitment:
        return Commitment.over(commitment.site_secret(self.home), self.name, [mark for _, mark in self.records])

    def _refuse_superseded(self) -> None:
        if len(withdrawn(self.home, self.name)) != self.about["withdrawn"]:
            raise DataError(
                f"version {self.version[:12]} of data set '{self.name}' holds records that were withdrawn since; "
                "it is not opened any more (see fedimb node data list)"
            )

    def _files(self) -> list[JsonObject]:
        try:
            found: list[dict[str, object]] = json.loads((self.folder / "files.json").read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError):
            return []  # then every record is read

    def _states(self) -> list[tuple[str, int, int]]:
        return [_state(Path(one["path"])) for one in self._files()]

    def _drop_other_store(self, reading: Reading) -> None:
        """Delete a cached store that does not hold the records just verified."""
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
            log.warning("the cache of data set '%s' was not what the files hold: deleted", self.name)
            shutil.rmtree(path)


def differences(registered: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]) -> Iterator[str]:
    """What changed between two lists of (place, keyed hash), one line each; nothing where they are the same list."""
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
        yield f"the records are in another order from {at} on"


def _beyond(records: Sequence[tuple[str, str]], count: Counter[str], others: set[tuple[str, str]]) -> list[str]:
    """Places of the records that are too many by ``count``; of equal ones rather those with no twin at their place."""
    left, found = count.copy(), []
    for record in sorted(records, key=lambda record: record in others):  # stable: in the files' order otherwise
        if left[record[1]] > 0:
            left[record[1]] -= 1
            found.append(record[0])
    return found


def watched(reading: Reading, source: dict[str, object]) -> list[Path]:
    """Files to look at, and the folders in which a new one would be a new record."""
    folders = {file.parent for file in reading.files} if source["name"] in ("image_folder", "huggingface") else set()
    return [*reading.files, *sorted(folders)]


def write_files(folder: Path, paths: Sequence[Path]) -> None:
    """Write files.json: size, time of change and SHA-256 of each."""
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
    """(path, bytes, time of change); of a folder no bytes; -1 where it is missing."""
    try:
        facts = path.stat()
    except OSError:
        return str(path), -1, -1
    return str(path), facts.st_size if path.is_file() else 0, facts.st_mtime_ns
