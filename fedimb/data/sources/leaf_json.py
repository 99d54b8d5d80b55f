"""LEAF's JSON files: rows by user, such as the writers of FEMNIST."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.paths import find_data
from fedimb.data.problems import Problems
from fedimb.data.sources.files import fingerprint, with_progress
from fedimb.data.sources.site_arrays import SiteRows, assemble_sites
from fedimb.errors import ConfigError, DataError
from fedimb.registry import register

KEYS = ("users", "num_samples", "user_data")


@register("source", "leaf_json")
@dataclass(frozen=True)
class LeafJson:
    """Rows by user in JSON, as LEAF (Caldas et al., arXiv:1812.01097) and its relatives write them.

    x [n, *shape] float32, used unchanged; sites are the users, in the order of the files.

    Each file holds ``users``, ``num_samples`` and ``user_data`` {user: {x: [...], y: [...]}}. Rows of text
    (Shakespeare, Sent140) and names of pictures (CelebA) are not read.

    Args:
        path: a .json file; a folder of them; or the folder above train and test, whose test rows are the official test
            set. See `fedimb.data.paths`.
        shape: of one row, as [1, 28, 28] for FEMNIST (channels first); null: as in the file.
        users: ``site``: a user is a site, for partition=by_column. ``patient``: a user is never on both sides of a
            split (LEAF's own split by sample has each user on both, so it needs ``site``).
        class_names: in the order of the class ids; null: the labels found.
        on_bad: `fedimb.data.problems`.
    """

    path: str
    shape: tuple[int, ...] | None = None
    users: Literal["site", "patient"] = "site"
    class_names: list[str] | None = None
    on_bad: str = "refuse"

    def __post_init__(self) -> None:
        if self.shape is not None and (not self.shape or min(self.shape) < 1):
            raise ConfigError(f"source 'leaf_json': shape={list(self.shape)}: give whole numbers, each at least 1")

    def fingerprint(self) -> str:
        """Of all files: what they hold, and in which set they are."""
        files = self._files()
        return fingerprint("leaf_json-2", [str(file) for file, _ in files], [test for _, test in files])

    def load(self) -> SourceData:
        """Read all files.

        Raises:
            DataError: a file that is not LEAF's, users that are listed twice or have no data, rows of text or of
                different lengths, bad rows.
        """
        problems = Problems(self.on_bad)
        parts: list[SiteRows] = []
        seen: dict[tuple[str, bool], str] = {}
        for file, test in with_progress(self._files(), f"{self.path}: reading users"):
            shown = file.name if file.parent == find_data(self.path) else f"{file.parent.name}/{file.name}"
            for user, rows in _users(file, shown).items():
                place = f"{shown} user '{user}'"
                if (user, test) in seen:
                    raise DataError(f"{place} is also in {seen[user, test]}; give each user once per set")
                seen[user, test] = shown
                parts.append(SiteRows(place, user, test, self._x(rows["x"], place), rows["y"]))
        return assemble_sites(parts, self.class_names, problems, self.users)

    def _files(self) -> list[tuple[Path, bool]]:
        """(file, whether of the test set), in order."""
        root = find_data(self.path)
        if root.is_file():
            return [(root, False)]
        sets = [(root / "train", False), (root / "test", True)] if (root / "train").is_dir() else [(root, False)]
        found = [(file, test) for folder, test in sets if folder.is_dir() for file in sorted(folder.glob("*.json"))]
        if not found:
            raise DataError(f"{self.path} has no .json files, nor train/ with some; give LEAF's data folder")
        return found

    def _x(self, rows: Any, place: str) -> NDArray[Any]:
        try:
            x = np.array(rows)
        except ValueError as error:
            raise DataError(f"{place} x has rows of different lengths; give rows of one length") from error
        if x.dtype.kind == "U":
            raise DataError(f"{place} x is text; only rows of numbers are read: encode it first")
        if x.dtype.kind not in "iuf":
            what = "truth values" if x.dtype.kind == "b" else "null or mixed values"
            raise DataError(f"{place} x holds {what}; give numbers")
        x = x.reshape(len(x), -1) if x.ndim == 1 else x
        if self.shape is not None and len(x):
            given, wanted = int(np.prod(x.shape[1:])), int(np.prod(self.shape))
            if given != wanted:
                raise DataError(f"{place} x has {given} values per row, shape={list(self.shape)} needs {wanted}")
            x = x.reshape(len(x), *self.shape)
        with np.errstate(over="ignore"):
            return x.astype(np.float32)


def _users(file: Path, shown: str) -> dict[str, dict[str, Any]]:
    """User -> {x, y} of one file."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise DataError(f"{shown} has '{next(n for n in names if names.count(n) > 1)}' twice; give each key once")
        return found

    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except UnicodeDecodeError as error:
        raise DataError(f"{shown} is not text in UTF-8 ({error.reason}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown} is not complete JSON ({error}); copy it again") from error
    except OSError as error:
        raise DataError(f"{shown} cannot be read ({error.strerror}); check its permissions") from error
    if not isinstance(content, dict) or (lacking := [key for key in KEYS if key not in content]):
        raise DataError(
            f"{shown} has no '{lacking[0] if isinstance(content, dict) else 'users'}'; "
            f"a LEAF file holds {', '.join(KEYS)}"
        )
    users, counts, data = (content[key] for key in KEYS)
    if not isinstance(users, list) or not isinstance(counts, list) or not isinstance(data, dict):
        raise DataError(f"{shown}: users and num_samples are lists and user_data a mapping in a LEAF file; one is not")
    if len(counts) != len(users):
        raise DataError(f"{shown} has {len(users)} users and {len(counts)} num_samples; give one each")
    if odd := sorted(set(map(str, users)) ^ set(data)):
        raise DataError(f"{shown}: user '{odd[0]}' is in {'user_data' if odd[0] in data else 'users'} alone")
    for user, count in zip(map(str, users), counts, strict=True):
        rows = data[user]
        if not isinstance(rows, dict) or not all(isinstance(rows.get(key), list) for key in ("x", "y")):
            raise DataError(f"{shown} user '{user}' has no lists x and y")
        if not len(rows["x"]) == len(rows["y"]) == count:
            raise DataError(
                f"{shown} user '{user}' has {len(rows['x'])} rows of x, {len(rows['y'])} of y and "
                f"num_samples {count}; they must agree"
            )
    return {str(user): data[str(user)] for user in users}
