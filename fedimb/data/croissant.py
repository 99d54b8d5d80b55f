"""Croissant metadata (MLCommons, JSON-LD) of a data set and the partition of it that a run uses.

Written with mlcroissant, ``pip install 'fedimb[croissant]'``. Neither rows nor ids of rows, patients or sites are in
it, and of paths only what is below the folder of the data.
"""

import hashlib
import mimetypes
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fedimb.data.paths import find_data
from fedimb.errors import ConfigError, DataError
from fedimb.plain import JsonObject, Settings

if TYPE_CHECKING:
    from fedimb.data.federation import Federation
    from fedimb.data.store import Store

_PLACES = ("path", "paths", "files", "folder", "labels", "root")  # settings of sources that name files
_TYPES = {".npz": "application/octet-stream", ".parquet": "application/x-parquet", ".csv": "text/csv"}
_CHUNK = 1 << 22


def croissant(
    federation: "Federation", name: str, about: Mapping[str, str], source: Settings, partition_sha: str
) -> JsonObject:
    """The metadata as a JSON object.

    Args:
        name: of the data set.
        about: what ``data.about`` says: source, licence, citation, split, flaws.
        source: the run's source ``{name: ..., **args}``.
        partition_sha: hash of who holds which rows.

    Raises:
        ConfigError: mlcroissant is not installed.
        DataError: a file of the source cannot be read.
    """
    mlc, store = _load_mlcroissant(), federation.store
    files = _distribution(mlc, source)
    metadata = mlc.Metadata(
        name=name,
        description=_description(store, about, source),
        license=[about["licence"]] if "licence" in about else None,
        cite_as=about.get("citation"),
        distribution=files,
        record_sets=[
            *_rows(mlc, store, source, files),
            _table(
                mlc, "classes", "The classes by id", [{"id": i, "name": c} for i, c in enumerate(store.class_names)]
            ),
            _table(mlc, "fields", "What a row holds, as models read it", _fields(store)),
            _table(mlc, "partition", _partition_text(federation, partition_sha), _partition(federation)),
            _table(
                mlc,
                "checksums",
                "Hashes of what the source gives and of who holds which rows",
                [
                    {"of": "content", "sha256": store.content_sha},
                    {"of": "partition", "sha256": partition_sha},
                ],
            ),
        ],
    )
    document: JsonObject = metadata.to_json()
    return document


def _load_mlcroissant() -> ModuleType:
    try:
        import mlcroissant
    except ImportError:
        raise ConfigError("--croissant needs mlcroissant: pip install 'fedimb[croissant]'") from None
    return mlcroissant


def _description(store: "Store", about: Mapping[str, str], source: Settings) -> str:
    counts = ", ".join(
        f"{name} {count:,}"
        for name, count in zip(store.class_names, store.class_counts(np.arange(len(store))).tolist(), strict=True)
    )
    said = [f"{key.capitalize()}: {about[key]}." for key in ("source", "split", "flaws") if key in about]
    shape = " x ".join(map(str, store.input_shape))
    return " ".join(
        [f"{len(store):,} rows of {shape} ({store.x.dtype}), read as '{source['name']}'. Classes: {counts}.", *said]
    )


def _distribution(mlc: ModuleType, source: Settings) -> list[Any]:
    """A FileObject per file of the source, a FileSet per folder; none for bundled data and other places."""
    found: dict[str, Any] = {}
    ids: set[str] = set()
    for place in _PLACES:
        value = source.get(place)
        named = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for path in named:
            if isinstance(path, str) and (file := _existing(path)) is not None and str(file) not in found:
                ident = _file_id(_shown(path))
                ident += f"_{len(found)}" if ident in ids else ""  # two folders may hold files of one name
                ids.add(ident)
                found[str(file)] = _entry(mlc, _shown(path), file, ident)
    return list(found.values())


def _existing(path: str) -> Path | None:
    try:
        return find_data(path)
    except DataError:  # a name on a hub
        return None


def _shown(path: str) -> str:
    """The path below the folder of the data; of an absolute one, or one that leads up, the name alone."""
    pure = PurePath(path)
    outside = pure.is_absolute() or any(part == ".." or part.startswith("~") for part in pure.parts)
    return pure.name if outside else pure.as_posix()


def _entry(mlc: ModuleType, shown: str, file: Path, ident: str) -> Any:
    if file.is_dir():
        return mlc.FileSet(
            id=ident, name=shown, includes=[f"{shown}/**/*"], encoding_formats=["application/octet-stream"]
        )
    kind = _TYPES.get(file.suffix.lower()) or mimetypes.guess_type(shown)[0] or "application/octet-stream"
    sha = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while part := stream.read(_CHUNK):
                sha.update(part)
        size = os.stat(file).st_size
    except OSError as error:
        raise DataError(f"{shown}: cannot be read ({error.strerror}); check its permissions") from None
    return mlc.FileObject(
        id=ident,
        name=shown,
        content_url=shown,
        content_size=f"{size} B",
        encoding_formats=[kind],
        sha256=sha.hexdigest(),
    )


def _file_id(shown: str) -> str:
    return "/".join(map(_id, shown.split("/")))


def _id(name: str) -> str:
    """A name as part of an id, which may not have blanks."""
    return re.sub(r"[^\w.-]+", "_", name)


def _rows(mlc: ModuleType, store: "Store", source: Settings, files: list[Any]) -> list[Any]:
    """For a table in CSV files with names and commas: its columns, so that tools can read its rows."""
    plain = source.get("header", True) and source.get("delimiter", ",") == ","
    if source["name"] != "tabular_csv" or not plain or store.columns is None:
        return []
    target = source["target"]
    labels = [target] if isinstance(target, str) else list(target)
    sets = []
    for at, file in enumerate(file for file in files if file.encoding_formats == ["text/csv"]):
        name = "rows" if len(files) == 1 else f"rows_{at}"
        fields = []
        columns = (*store.columns.names, *labels)
        once = Counter(map(_id, columns))
        for number, column in enumerate(columns):
            text = column in store.columns.categories or column in labels
            fields.append(
                mlc.Field(
                    id=f"{name}/{_id(column)}" + (f"_{number}" if once[_id(column)] > 1 else ""),
                    name=column,
                    data_types=[mlc.DataType.TEXT if text else mlc.DataType.FLOAT],
                    source=mlc.Source(file_object=file.id, extract=mlc.Extract(column=column)),
                )
            )
        sets.append(mlc.RecordSet(id=name, name=name, description=f"Rows of {file.name}", fields=fields))
    return sets


def _fields(store: "Store") -> list[JsonObject]:
    shape = " x ".join(map(str, store.input_shape))
    x = [{"field": "x", "type": str(store.x.dtype), "shape": shape}]
    if store.columns is not None:
        x = [{"field": name, "type": "float32", "shape": "1"} for name in store.columns.inputs]
    several = "class ids" if store.targets is not None else "class id"
    return [*x, {"field": "label", "type": several, "shape": "1" if store.targets is None else str(store.n_classes)}]


def _partition_text(federation: "Federation", sha: str) -> str:
    held = int(federation.train_sizes.sum()), int(federation.validation.sizes.sum())
    return (
        f"Rows of each class at each client, validation included, and in the test set: {federation.n_clients} clients, "
        f"{held[0]:,} training, {held[1]:,} validation and {len(federation.test):,} test rows. sha256 {sha}"
    )


def _partition(federation: "Federation") -> list[JsonObject]:
    holders = [(f"client {k}", counts) for k, counts in enumerate(federation.counts)]
    holders.append(("test", federation.store.class_counts(federation.test)))
    if len(federation.public):
        holders.append(("server", federation.store.class_counts(federation.public)))
    return [
        {"holder": holder, "class": name, "rows": int(count)}
        for holder, counts in holders
        for name, count in zip(federation.class_names, counts.tolist(), strict=True)
        if count
    ]


def _table(mlc: ModuleType, name: str, text: str, rows: list[JsonObject]) -> Any:
    """A record set whose rows are in the document."""
    kinds = {int: mlc.DataType.INTEGER, str: mlc.DataType.TEXT}
    fields = [
        mlc.Field(id=f"{name}/{key}", name=key, data_types=[kinds[type(value)]]) for key, value in rows[0].items()
    ]
    data = [{f"{name}/{key}": value for key, value in row.items()} for row in rows]
    return mlc.RecordSet(id=name, name=name, description=text, fields=fields, data=data)
