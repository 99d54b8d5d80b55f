"""One .npz per client, as PFLlib and its relatives write them: train/0.npz, train/1.npz, ..., test/0.npz, ..."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.identifiers import in_order
from fedimb.data.paths import find_data
from fedimb.data.problems import Problems
from fedimb.data.sources.files import fingerprint, with_progress
from fedimb.data.sources.npz_file import DAMAGE, NpzFile
from fedimb.data.sources.pickled_arrays import unpickle_arrays
from fedimb.data.sources.site_arrays import SiteRows, assemble_sites
from fedimb.errors import DataError, nearest
from fedimb.registry import register

_DEFLATE_AT_MOST = 1032  # bytes from one compressed byte: zlib's limit
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@register("source", "shards")
@dataclass(frozen=True)
class Shards:
    """A data set that is already divided among clients: one .npz per client in the folders train and test.

    x uint8 (scale 1/255) or float32 (scale 1), [n, channels, height, width] or [n, features]; sites are the shards.

    Written by PFLlib (Zhang et al., JMLR 26:50, 2025) and relatives: each file holds a pickled dict ``data`` with x and
    y. It is read without running anything: arrays of numbers are taken, all else is refused. Files that hold x and y as
    plain arrays are read too. With partition=by_column each shard is one client; ``test/`` is the official test set.

    Args:
        path: the folder above train and test; see `fedimb.data.paths`.
        train_folder, test_folder: names of the two folders; null: there is no such set.
        class_names: in the order of the class ids; null: the labels found.
        on_bad: `fedimb.data.problems`.
    """

    path: str
    train_folder: str | None = "train"
    test_folder: str | None = "test"
    class_names: list[str] | None = None
    on_bad: str = "refuse"

    def fingerprint(self) -> str:
        """Of all shards: what they hold, and whose they are."""
        files = self._files()
        return fingerprint("shards-2", [str(file) for *_, file in files], [(site, test) for site, test, _ in files])

    def load(self) -> SourceData:
        """Read all shards.

        Raises:
            DataError: no shards, a file that holds anything but arrays of numbers, different shapes, bad rows.
        """
        problems = Problems(self.on_bad)
        parts = []
        for site, test, file in with_progress(self._files(), f"{self.path}: reading shards"):
            shown = f"{self.path}/{file.parent.name}/{file.name}"
            x, y = _arrays(file, shown)
            parts.append(SiteRows(shown, site, test, _channels_first(x), y))
        return assemble_sites(parts, self.class_names, problems)

    def _files(self) -> list[tuple[str, bool, Path]]:
        """(site, whether of the test set, file) of each shard: by site, training rows first."""
        root = find_data(self.path)
        if not root.is_dir():
            raise DataError(f"{self.path} is a file; give the folder above {self.train_folder or self.test_folder}")
        found: dict[str, list[tuple[str, bool, Path]]] = {}
        for name, test in ((self.train_folder, False), (self.test_folder, True)):
            if name is None or (test and not (root / name).is_dir()):
                continue
            if not (root / name).is_dir():
                raise DataError(f"{self.path} has no folder '{name}'; give the folder above it, or train_folder=...")
            for file in (root / name).glob("*.npz"):
                found.setdefault(file.stem, []).append((file.stem, test, file))
        if not found:
            raise DataError(f"{self.path} has no shards: {self.train_folder}/0.npz, {self.train_folder}/1.npz, ...")
        return [shard for site in in_order(found) for shard in found[site]]


def _arrays(file: Path, shown: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """x and y of a shard."""
    with NpzFile(str(file)) as arrays:
        keys = arrays.keys
        held = arrays if "data" not in keys else unpickle_arrays(_pickle(file, shown), f"{shown} data")
        there = keys if "data" not in keys else tuple(held)  # type: ignore[arg-type]
        for key in ("x", "y"):
            if key not in there:
                raise DataError(f"{shown} holds {', '.join(there) or 'nothing'} and no {key}.{nearest(key, there)}")
        x, y = held["x"], held["y"]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(f"{shown} y is {list(y.shape)}; give one label per row")
    return x, y


def _pickle(file: Path, shown: str) -> bytes:
    """The pickle behind the header of array ``data``."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(member := archive.getinfo("data.npy")) as stream:
            if member.file_size > _DEFLATE_AT_MOST * min(member.compress_size, file.stat().st_size) + 1024:
                raise DataError(f"{shown} data says {member.file_size:,} bytes, more than the file can hold")
            version = np.lib.format.read_magic(stream)
            shape, _, dtype = _HEADERS[version](stream)
            if not dtype.hasobject or shape != ():
                raise DataError(f"{shown} data is {dtype} {list(shape)}; give a dict of x and y, or arrays x and y")
            return stream.read()
    except DAMAGE as error:
        raise DataError(f"{shown} data is damaged ({type(error).__name__}); copy the file again") from error


def _channels_first(x: NDArray[Any]) -> NDArray[Any]:
    """[n, h, w] and [n, h, w, channels] become [n, channels, h, w]; everything else is taken as it is."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x
