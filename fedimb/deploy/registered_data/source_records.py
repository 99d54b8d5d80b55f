"""The records of a registered data set: their content, where to find them, and which patient they belong to.

A source returns arrays; `fedimb.deploy.registered_data.record_lists` adds the places and patients' ids, which stay in
this process.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.labels import UNKNOWN_CELL
from fedimb.data.paths import find_data
from fedimb.data.store import build_source
from fedimb.data.windows import Windows
from fedimb.deploy.registered_data.record_lists import PATHS, RecordPlace, list_records
from fedimb.errors import ConfigError, DataError
from fedimb.plain import Settings


@dataclass(frozen=True, eq=False)
class Reading:
    """All data of a source, with the origin of each row.

    Attributes:
        data: the arrays.
        rows: origin of each row of ``data``, in the same order.
        files: all files that were read.
        columns: names of the columns of x; empty if the source has none.
    """

    data: SourceData
    rows: tuple[RecordPlace, ...]
    files: tuple[Path, ...]
    columns: tuple[str, ...] = ()

    def record(self, i: int) -> bytes:
        """Row ``i`` without its label, as unambiguous bytes.

        Format: length of the header (8 bytes, big-endian); the header (JSON with type, shape, patient, site and split);
        the values (little-endian, last axis fastest).
        """
        data = self.data
        x = np.ascontiguousarray(data.x[i], dtype=data.x.dtype.newbyteorder("<"))
        header = json.dumps(
            {
                "dtype": data.x.dtype.name,
                "shape": list(x.shape),
                "patient": self.rows[i].patient,
                "site": None if data.sites is None else data.site_names[int(data.sites[i])],
                "test": None if data.official_test is None else bool(data.official_test[i]),
            },
            sort_keys=True,
            ensure_ascii=False,
        ).encode(errors="surrogatepass")
        return len(header).to_bytes(8, "big") + header + x.tobytes()

    def label(self, i: int) -> bytes:
        """Names of the classes of row ``i``, as JSON; of those that are unknown with a ? before each."""
        data = self.data
        ids = [int(data.y[i])] if data.targets is None else np.flatnonzero(data.targets[i] == 1)
        said = [data.class_names[c] for c in ids]
        if data.targets is not None:
            said += [f"?{data.class_names[c]}" for c in np.flatnonzero(data.targets[i] == UNKNOWN_CELL)]
        return json.dumps(said, ensure_ascii=False).encode(errors="surrogatepass")

    def subset(self, kept: NDArray[np.bool_]) -> "Reading":
        """The rows where ``kept`` [n] is True, in order."""
        data = self.data
        names = ("x", "y", "sites", "patients", "official_test", "targets", "times", "row_ids", "recordings", "origins")
        cut = {name: getattr(data, name)[kept] for name in names if getattr(data, name) is not None}
        if isinstance(data.x, Windows):
            cut["x"] = data.x.kept(kept)
        if data.attributes:
            cut["attributes"] = {k: replace(c, codes=c.codes[kept]) for k, c in data.attributes.items()}
        rows = tuple(row for row, keep in zip(self.rows, kept, strict=True) if keep)
        return replace(self, data=replace(data, **cut), rows=rows)


def absolute_paths(source: dict[str, object]) -> dict[str, object]:
    """Make all file paths in a source's settings absolute, because a node works in another folder.

    Raises:
        DataError: a file does not exist.
    """

    def made(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: made(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [made(item) for item in value]
        return str(find_data(value)) if isinstance(value, str) else value

    return {key: made(value) if key in PATHS else value for key, value in source.items()}


def read_source(config: Settings, attributes: Sequence[str] = ()) -> Reading:
    """Read ``{name: <source>, on_bad: ..., **args}`` completely, from the files rather than a cache.

    ``attributes``: columns that a run is scored by (`fedimb.data.subgroups`).

    Raises:
        ConfigError: the source or a setting is unknown.
        DataError: a file is missing, rows are bad (names their places), or labels cannot express a class.
    """
    args = dict(config)
    name, on_bad = args.pop("name"), args.pop("on_bad", "refuse")
    source = build_source(name, args, on_bad, attributes)
    data = source.load()
    if not isinstance(data, SourceData):
        raise DataError(f"source '{name}' loads a {type(data).__name__}, not SourceData; fix the source")
    listed, files = list_records(name, source)
    rows = list(_without(listed, data.skipped))
    if len(rows) != len(data.y):  # a third-party source, or one whose rows are not rows of a file
        rows = [RecordPlace(f"{name} record {i + 1}") for i in range(len(data.y))]
    return Reading(
        data,
        tuple(rows),
        tuple(files),
        tuple(getattr(source, "feature_names", ())) or (data.signal.channels if data.signal else ()),
    )


def find_record(places: Iterable[str], text: str) -> int:
    """Index of the record that ``text`` names: by its whole place, its file name, or its row number.

    Raises:
        ConfigError: no record matches, or several do.
    """
    places = list(places)
    number = re.compile(rf"( row |record |\[){re.escape(text)}\]?$") if text.isdecimal() else None
    found = [i for i, place in enumerate(places) if place == text]
    found = found or [
        i for i, place in enumerate(places) if place.endswith(f"/{text}") or (number and number.search(place))
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"no record '{text}': write it as '{places[0]}', or give its row number")
    raise ConfigError(f"'{text}' matches {len(found)} records: write {' or '.join(repr(places[i]) for i in found[:2])}")


def _without(listed: Iterable[RecordPlace], skipped: Iterable[str]) -> Iterator[RecordPlace]:
    """The rows that were not skipped. ``skipped``: lines ``place: reason``; a place may itself contain ``: ``."""
    left_out = {line[: at.start()] for line in skipped for at in re.finditer(": ", line)}
    for row in listed:
        own = re.fullmatch(r"(.* )(x|\w+_images)(\[\d+\])", row.place)
        names = [row.place]
        if own:  # an .npz: the values, label, site and patient of a row are places of their own
            kinds = ("labels", "sites", "patients")
            others = ["y", *kinds[1:]] if own[2] == "x" else [own[2].replace("_images", f"_{kind}") for kind in kinds]
            names += [own[1] + other + own[3] for other in others]
        if not left_out.intersection(names):
            yield row
