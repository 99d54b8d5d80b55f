"""A source decoded once into a folder of .npy files that every worker memory-maps.

Ten thousand clients then need index lists, not copies of the data.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb import registry
from fedimb.atomic import write_atomic
from fedimb.data.arrays import PATIENTS, AttributeColumn, SourceData
from fedimb.data.findings.finding import Finding
from fedimb.data.findings.look import RULES, look_at
from fedimb.data.identifiers import READING
from fedimb.data.inputs import TableColumns
from fedimb.data.labels import UNKNOWN_CELL, class_counts
from fedimb.data.windows import SignalFacts, Windows
from fedimb.errors import ConfigError, DataError
from fedimb.shapes import SignalShape

__all__ = ["SourceData", "Store", "open_source", "open_store"]

FORMAT = 2  # raised when the folder's layout changes: old caches are then ignored, not misread
_COLUMNS = {"sites": np.int64, "patients": np.int64, "official_test": np.bool_, "targets": np.uint8}
_LATER_COLUMNS = (
    "times",
    "row_ids",
    "recordings",
    "origins",
)  # stores of before have none, and keep their content hash
_HASHED_LATER = ("times", "recordings", "origins")
_CHUNK_BYTES = 1 << 26
_FINDINGS, _GROUPS = "findings.json", "groups.npy"
_STARTS = "starts.npy"  # [n] int64: x.npy then holds recordings [channels, samples], and rows are windows of them
_ATTRIBUTES = "attributes.npy"  # [A, n] int32; their names and values are in meta.json
ATTRIBUTES = "attributes"
"""Argument of a source that can read columns besides its own: their names, in the order of ``data.subgroups``."""
log = logging.getLogger("fedimb")


@dataclass(frozen=True, eq=False)
class Store:
    """An opened store. Its arrays are read-only memory maps of the files; see `SourceData` for their meaning.

    Beside the arrays the folder keeps what was found in the data (findings.json) and which rows are identical
    (groups.npy). Both are no part of the content: they change neither `content_sha` nor a fingerprint.
    """

    path: Path
    x: NDArray[np.generic]
    y: NDArray[np.int64]
    class_names: tuple[str, ...]
    scale: float
    sites: NDArray[np.int64] | None
    site_names: tuple[str, ...]
    patients: NDArray[np.int64] | None
    official_test: NDArray[np.bool_] | None
    task: str
    fingerprint: str
    skipped: tuple[str, ...] = ()
    scaled: NDArray[np.bool_] | None = None
    targets: NDArray[np.uint8] | None = None
    columns: TableColumns | None = None
    times: NDArray[Any] | None = None
    row_ids: NDArray[np.str_] | None = None
    label_names: dict[str, str] | None = None
    attributes: Mapping[str, AttributeColumn] = field(default_factory=dict)
    signal: SignalFacts | None = None
    recordings: NDArray[np.int64] | None = None
    origins: NDArray[np.int64] | None = None
    units: str = PATIENTS
    encoder: str | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row of x; of a window of signals it says that this is no picture."""
        shape = tuple(self.x.shape[1:])
        return SignalShape(shape) if self.signal is not None and len(shape) == 2 else shape

    @property
    def names_patients(self) -> bool:
        """Whether ``patients`` are people, and not recordings or windows that only belong together: a person may have
        several of these, so that no promise about patients can rest on them."""
        return self.patients is not None and self.units == PATIENTS

    def class_counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """[C] int64: how many of ``rows`` have each class; a row with several labels counts for each."""
        return class_counts(self.y, self.targets, self.n_classes, rows)

    @cached_property
    def unknown_cells(self) -> bool:
        """Whether rows have several labels and of some it is not known whether they have them."""
        return self.targets is not None and bool((self.targets == UNKNOWN_CELL).any())

    @cached_property
    def findings(self) -> tuple[Finding, ...] | None:
        """What was found in the data; None if they were decoded by an earlier fedimb, or looked at by other rules."""
        try:
            kept = json.loads((self.path / _FINDINGS).read_text(encoding="utf-8"))
            return tuple(map(Finding.from_facts, kept["findings"])) if kept["rules"] == RULES else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """[n] the first row that is identical to each row; None if no two are."""
        path = self.path / _GROUPS
        return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None

    def look(self, data: SourceData) -> None:
        """Look at the data again from which this store was built, and keep what is found."""
        found, groups = look_at(data)
        with contextlib.suppress(OSError):  # another user's cache: looked at again by each process
            _keep_findings(self.path, found, groups)
        self.__dict__["findings"] = tuple(found)
        self.__dict__["groups"] = groups if _repeat(groups) else None

    @cached_property
    def content_sha(self) -> str:
        """sha256 (hex) of what the source gave: arrays, labels, groups, times and names; not of where it was, nor of
        the rows' ids.

        Kept in the store's folder, as reading gigabytes takes seconds.
        """
        kept = self.path / "content.sha256"
        try:
            return _checked(kept.read_text(encoding="ascii"))
        except (OSError, ValueError):
            found = _content_sha(self)
        with contextlib.suppress(OSError):  # another user's cache: computed again by each process
            write_atomic(kept, found.encode())
        return found

    @staticmethod
    def open(path: str | Path) -> "Store":
        """Map the store in folder ``path``.

        Raises:
            DataError: missing folder or file, wrong format, or files that do not match each other.
        """
        path = Path(path)
        try:
            meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']}, this fedimb reads {FORMAT}")
            x: Any = np.load(path / "x.npy", mmap_mode="r", allow_pickle=False)
            if cut := meta.get("windows"):
                starts = np.load(path / _STARTS, mmap_mode="r", allow_pickle=False)
                x = Windows(x, starts, int(cut["length"]), bool(cut["standardise"]))
            y = np.load(path / "y.npy", mmap_mode="r", allow_pickle=False)
            columns = {
                name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in (*_COLUMNS, *_LATER_COLUMNS)
                if name in meta["columns"]
            }
            shapes = [list(x.shape), str(x.dtype), list(y.shape), str(y.dtype)]
            wide = (len(y), len(meta["class_names"]))
            if shapes != [meta["shape"], meta["dtype"], meta["shape"][:1], "int64"] or any(
                c.shape != (wide if name == "targets" else y.shape) or c.dtype != _COLUMNS.get(name, c.dtype)
                for name, c in columns.items()
            ):
                raise ValueError("array shapes do not match meta.json")
            return Store(
                path=path,
                x=x,
                y=y,
                class_names=tuple(meta["class_names"]),
                scale=float(meta["scale"]),
                sites=columns.get("sites"),
                site_names=tuple(meta["site_names"]),
                patients=columns.get("patients"),
                official_test=columns.get("official_test"),
                targets=columns.get("targets"),
                task=meta["task"],
                fingerprint=meta["fingerprint"],
                skipped=tuple(meta["skipped"]),
                scaled=None if meta["scaled"] is None else np.array(meta["scaled"], dtype=np.bool_),
                columns=TableColumns.from_facts(named) if (named := meta.get("named")) else None,
                times=columns.get("times"),
                row_ids=columns.get("row_ids"),
                label_names=meta.get("label_names"),  # stores of 0.1 have none
                attributes=_open_attributes(path, meta.get("attributes") or {}, len(y)),
                signal=SignalFacts.from_facts(told) if (told := meta.get("signal")) else None,
                recordings=columns.get("recordings"),
                origins=columns.get("origins"),
                units=meta.get("units", PATIENTS),
                encoder=meta.get("encoder"),
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"store {path} is missing or damaged ({reason}); delete the folder and build it again"
            ) from error

    @staticmethod
    def build(source: SourceData, path: str | Path, fingerprint: str) -> "Store":
        """Write ``source`` to folder ``path`` and open it. An existing store is kept.

        The store is written to a temporary sibling and renamed: if several processes build it, one wins and none sees
        an incomplete store.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            names = (*_COLUMNS, *_LATER_COLUMNS)
            columns = {n: getattr(source, n) for n in names if getattr(source, n) is not None}
            x, windows = source.x, source.x if isinstance(source.x, Windows) else None
            if windows is not None:
                x = windows.recording
                np.save(building / _STARTS, windows.starts, allow_pickle=False)
            for name, array in {"x": x, "y": source.y, **columns}.items():
                np.save(building / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
            if source.attributes:
                codes = np.stack([column.codes for column in source.attributes.values()])
                np.save(building / _ATTRIBUTES, codes, allow_pickle=False)
            meta = {
                "format": FORMAT,
                "fingerprint": fingerprint,
                "class_names": source.class_names,
                "scale": source.scale,
                "site_names": source.site_names,
                "task": source.task,
                "shape": source.x.shape,
                "dtype": str(source.x.dtype),
                "columns": sorted(columns),
                "skipped": source.skipped,
                "scaled": None if source.scaled is None else source.scaled.tolist(),
                "named": None if source.columns is None else source.columns.facts(),
                "label_names": source.label_names,
                **(
                    {"attributes": {k: list(c.values) for k, c in source.attributes.items()}}
                    if source.attributes
                    else {}
                ),
                **_signal_facts(source, windows),
            }
            (building / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
            _keep_findings(building, *look_at(source))
            building.chmod(0o755)  # mkdtemp makes it private; a shared cache must be readable by other users
            try:
                os.rename(building, path)
            except OSError:
                if not (path / "meta.json").exists():  # not a lost race: the folder cannot be written
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return Store.open(path)


def _signal_facts(source: SourceData, windows: Windows | None) -> dict[str, object]:
    """What meta.json says of signals and of embeddings; nothing of other rows."""
    found: dict[str, object] = {} if source.units == PATIENTS else {"units": source.units}
    if source.encoder is not None:
        found["encoder"] = source.encoder
    if source.signal is not None:
        found["signal"] = source.signal.facts()
    if windows is not None:
        found["windows"] = {"length": windows.length, "standardise": windows.standardise}
    return found


def _open_attributes(path: Path, named: Mapping[str, Sequence[str]], n: int) -> dict[str, AttributeColumn]:
    if not named:
        return {}
    codes = np.load(path / _ATTRIBUTES, mmap_mode="r", allow_pickle=False)
    if codes.shape != (len(named), n) or codes.dtype != np.int32:
        raise ValueError("attributes do not match meta.json")
    return {name: AttributeColumn(tuple(values), codes[a]) for a, (name, values) in enumerate(named.items())}


def _repeat(groups: NDArray[np.int64]) -> bool:
    return bool((groups != np.arange(len(groups))).any())


def _keep_findings(folder: Path, found: Sequence[Finding], groups: NDArray[np.int64]) -> None:
    if _repeat(groups):
        held = io.BytesIO()
        np.save(held, groups, allow_pickle=False)
        write_atomic(folder / _GROUPS, held.getvalue())
    kept = {"rules": RULES, "findings": [one.facts() for one in found]}
    write_atomic(folder / _FINDINGS, json.dumps(kept, ensure_ascii=False, indent=1).encode())


def _content_sha(store: Store) -> str:
    scaled = None if store.scaled is None else store.scaled.tolist()
    names = [store.class_names, store.site_names, store.task, store.scale, scaled]
    sha = hashlib.sha256(json.dumps(names).encode())
    if store.signal is not None:
        sha.update(json.dumps(store.signal.facts()).encode())
    later = (name for name in _HASHED_LATER if getattr(store, name) is not None)
    for name in ("x", "y", *sorted(_COLUMNS), *later):
        array = getattr(store, name)
        sha.update(json.dumps([name, None if array is None else [list(array.shape), str(array.dtype)]]).encode())
        rows = 0 if array is None else max(1, _CHUNK_BYTES * len(array) // max(1, array.nbytes))
        for start in range(0, 0 if array is None else len(array), rows or 1):
            sha.update(np.ascontiguousarray(array[start : start + rows]).tobytes())
    for name, column in store.attributes.items():
        sha.update(json.dumps([name, column.values]).encode())
        sha.update(np.ascontiguousarray(column.codes).tobytes())
    return sha.hexdigest()


def _checked(text: str) -> str:
    """A hash that was kept. Raises ValueError if the file was cut short."""
    if len(text) != 64:
        raise ValueError("not a sha256")
    return text


def cache_dir(kind: str = "stores") -> Path:
    """Folder of what can be rebuilt at any time: ``$FEDIMB_CACHE_DIR/<kind>`` or ``~/.cache/fedimb/<kind>``."""
    root = os.environ.get("FEDIMB_CACHE_DIR")
    return (Path(root) if root else Path.home() / ".cache" / "fedimb") / kind


def open_source(config: dict[str, object]) -> Store:
    """Open the store of ``{name: <source>, **args}``, building it if it is not in the cache.

    ``attributes`` in ``config`` are columns that the run is scored by (`fedimb.data.subgroups`), for sources that take
    them. A source is a class or function registered as kind ``source`` whose object has ``fingerprint() -> str``
    (cheap; changes when the data do) and ``load() -> SourceData``. A source that can have bad rows takes ``on_bad``,
    which `prepare` adds to ``config`` (default refuse). Skipped rows are counted in a warning and listed in the store's
    meta.json.

    Raises:
        ConfigError: unknown source or argument.
        DataError: the source cannot be read, or its cached store is damaged.
    """
    args = dict(config)
    on_bad = args.pop("on_bad", "refuse")
    attributes: Any = args.pop("attributes", ())
    if not isinstance(name := args.pop("name", None), str):
        raise ConfigError("data.source needs a name, for example source: {name: digits}")
    source = build_source(name, args, str(on_bad), attributes)
    fingerprint = source.fingerprint()
    named = [list(attributes)] if attributes else []
    key = json.dumps([FORMAT, READING, name, args, fingerprint, on_bad, *named], sort_keys=True)
    path = cache_dir() / hashlib.sha256(key.encode()).hexdigest()[:32]
    store = open_store(path) if path.exists() else Store.build(source.load(), path, fingerprint)
    if store.findings is None:
        store.look(source.load())
    if store.skipped:
        where = path / "meta.json"
        log.warning(
            "source '%s': left out %d rows, listed in %s; first: %s",
            name,
            len(store.skipped),
            where,
            store.skipped[0],
        )
    return store


def build_source(name: str, args: Mapping[str, Any], on_bad: str, attributes: Sequence[str] = ()) -> Any:
    """Build a source. Raises ConfigError also if it cannot read ``attributes`` and there are some."""
    given: dict[str, object] = {"on_bad": on_bad}
    if attributes:
        if ATTRIBUTES not in registry.parameters("source", name):
            raise ConfigError(
                f"data.subgroups names '{attributes[0]}', but source '{name}' has no columns besides its own values: "
                "leave it out, or use a table or list of files that has the column"
            )
        given[ATTRIBUTES] = tuple(attributes)
    return registry.build("source", name, given=given, **args)


@lru_cache(maxsize=8)
def open_store(path: Path) -> Store:
    """`Store.open`, once per process and path."""
    return Store.open(path)
