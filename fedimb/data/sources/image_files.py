"""A folder or a zip of files, read by relative path without unpacking."""

import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Protocol

from fedimb.data.sources.files import with_progress
from fedimb.errors import DataError
from fedimb.plain import Settings

LARGEST = 1 << 30  # bytes: one image beyond this is a mistake or a zip bomb
_LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini"}


class Files(Protocol):
    """Read-only files below one root. Names are relative, with forward slashes; ``title`` names the root."""

    title: str

    def walk(self) -> tuple[list[str], list[str]]:
        """(files, folders), each sorted; without hidden files and those that file managers create."""

    def read(self, name: str) -> bytes:
        """The whole file. Raises DataError if it is missing, empty or unreadable; the caller prefixes the name."""

    def stamp(self, name: str) -> str:
        """Changes when the file does: size and time in a folder, size and checksum in a zip; "" when missing."""


def open_files(path: Path, inside: str = "") -> Files:
    """The files of folder or zip ``path``, or of folder ``inside`` below it.

    Raises:
        DataError: neither a folder nor a zip, or no such folder below it. A damaged zip is refused when it is read.
    """
    inside = clean_name(inside.rstrip("/")) if inside else ""
    if path.is_dir():
        if not (path / inside).is_dir():
            raise DataError(f"no folder '{inside}' in {path}")
        return Folder(path / inside)
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is neither a folder nor a readable zip file: give a folder or a .zip")
    return Zip(path, inside)


def fingerprint(kind: str, files: Files, names: Iterable[str], settings: Settings) -> str:
    """``kind`` and a hash over ``settings`` and the name and stamp of each file."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in with_progress(list(names), f"{files.title}: looking at files"):
        digest.update(f"{name}\0{files.stamp(name)}\n".encode(errors="surrogateescape"))
    return f"{kind}-{digest.hexdigest()}"


def clean_name(name: str) -> str:
    """A relative name without ``.`` and ``..``. Raises DataError if it is empty, absolute, or leads outside."""
    if not name:
        raise DataError("the path is empty")
    if name.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", name):
        raise DataError(f"'{name}' is absolute: give a path relative to the folder of the images")
    plain = os.path.normpath(name).replace(os.sep, "/")
    if ".." in re.split(r"[/\\]", plain):
        raise DataError(f"'{name}' leads outside the folder of the images")
    if plain == "." or "\0" in plain:
        raise DataError(f"{name!r} does not name a file")
    return plain


class Folder:
    """Files of a folder; links are followed."""

    def __init__(self, path: Path) -> None:
        self.path, self.title = path, path.name

    def walk(self) -> tuple[list[str], list[str]]:
        """See `Files`. Raises DataError if a link leads to a folder already read: its files would count twice."""
        files: list[str] = []
        folders: list[str] = []
        seen: dict[str, str] = {}

        def unreadable(error: OSError) -> None:
            raise DataError(f"cannot read folder {error.filename} ({error.strerror}): check its permissions")

        for here, below, names in os.walk(self.path, followlinks=True, onerror=unreadable):
            real, place = os.path.realpath(here), os.path.relpath(here, self.path).replace(os.sep, "/")
            if real in seen:
                raise DataError(f"{self.path}: '{place}' and '{seen[real]}' are the same folder; remove the link")
            seen[real] = place
            below[:] = [name for name in below if not _litter(name)]
            start = "" if place == "." else f"{place}/"
            folders += [start + name for name in below]
            files += [start + name for name in names if not _litter(name)]
        return sorted(files), sorted(folders)

    def read(self, name: str) -> bytes:
        """See `Files`."""
        file = os.path.join(self.path, name)
        try:
            _check_size(os.stat(file).st_size)
            with open(file, "rb") as stream:
                return stream.read()
        except OSError as error:
            if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise DataError(f"is not in {self.path}") from error
            raise DataError(f"cannot be read ({error.strerror})") from error

    def stamp(self, name: str) -> str:
        """See `Files`."""
        try:
            facts = os.stat(os.path.join(self.path, name))
        except OSError:
            return ""
        return f"{facts.st_size}-{facts.st_mtime_ns}"


class Zip:
    """Files of a zip. Its checksums do not change when the zip is copied.

    Raises:
        DataError: on the first read, if it is damaged or encrypted, or an entry is duplicate, absolute or contains
            ``..`` (unpacking it would write outside the folder).
    """

    def __init__(self, path: Path, inside: str = "") -> None:
        self.path = path
        self.title = f"{path.name}/{inside}".rstrip("/")
        self._start = f"{inside}/" if inside else ""

    @cached_property
    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise DataError(f"{self.path} is a damaged zip file ({error}): copy it again") from error

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        for entry in self._open.infolist():
            name = entry.filename
            if name.startswith(("/", "\\")) or name[1:2] == ":" or (".." in name and ".." in re.split(r"[/\\]", name)):
                raise DataError(f"{self.path}: entry '{name}' leads outside the zip; pack it again with relative names")
            if entry.flag_bits & 1:
                raise DataError(f"{self.path}: entry '{name}' is encrypted; pack it again without a password")
            if not name.startswith(self._start) or name == self._start:
                continue
            name = name.removeprefix(self._start)
            if name in entries:
                raise DataError(f"{self.path}: entry '{name}' occurs twice; pack it again")
            entries[name] = entry
        return entries

    def walk(self) -> tuple[list[str], list[str]]:
        """See `Files`."""
        kept = [name for name in self._entries if not any(map(_litter, name.split("/")))]
        folders: set[str] = set()
        for name in kept:
            above = name.rpartition("/")[0]
            while above and above not in folders:
                folders.add(above)
                above = above.rpartition("/")[0]
        return sorted(name for name in kept if not name.endswith("/")), sorted(folders)

    def read(self, name: str) -> bytes:
        """See `Files`."""
        if name not in self._entries:
            raise DataError(f"is not in {self.path}")
        _check_size(self._entries[name].file_size)
        try:
            return self._open.read(self._entries[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
            raise DataError(f"is damaged in the zip ({error})") from error

    def stamp(self, name: str) -> str:
        """See `Files`."""
        entry = self._entries.get(name)
        return f"{entry.file_size}-{entry.CRC:08x}" if entry else ""


def _litter(name: str) -> bool:
    return name.startswith(".") or name in _LITTER


def _check_size(size: int) -> None:
    if size == 0:
        raise DataError("is empty (0 bytes)")
    if size > LARGEST:
        raise DataError(f"has {size:,} bytes: more than any image (limit {LARGEST:,})")
