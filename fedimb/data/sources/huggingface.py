"""Hugging Face data sets: a folder written by ``save_to_disk``, or a name on the hub."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData, attribute_columns_of
from fedimb.data.findings.rows import name_findings
from fedimb.data.identifiers import identifier, in_order, names_nobody, no_label_marks, number_of_each
from fedimb.data.inputs import TableColumns
from fedimb.data.labels import as_targets, complete
from fedimb.data.new_rows import UNKNOWN, Expected, RowBatch, batch_rows
from fedimb.data.paths import find_data
from fedimb.data.problems import Problems
from fedimb.data.sources.files import fingerprint
from fedimb.data.sources.huggingface_files import is_parquet_layout, is_saved, parquet_splits
from fedimb.data.sources.huggingface_labels import is_list, of_one, one_label, several_labels
from fedimb.data.sources.npz_file import as_ids
from fedimb.data.sources.pictures import check_format, decode
from fedimb.errors import ConfigError, DataError, FedimbError, nearest
from fedimb.process_env import import_offline
from fedimb.registry import register

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


@register("source", "huggingface")
@dataclass(frozen=True)
class HuggingFace:
    """A Hugging Face dataset, from a folder or the hub: an image column, or number columns.

    x [n, channels, height, width] uint8 (scale 1/255) of an image column, or [n, F] float32 of number columns.

    Number columns are scaled and imputed like a table's (`fedimb.data.scaling`); null means missing.

    Args:
        path: a folder written by ``save_to_disk`` or of Parquet files by split, as the hub has them (see
            `fedimb.data.paths`), or else a name on the hub.
        image: column of images; null with ``features``.
        features: columns of numbers; null with ``image``.
        label: column of labels. Names come from its ClassLabel, else they are the sorted labels in the data. A column
            of lists, such as Sequence(ClassLabel), gives rows several labels; an empty list is "none"
            (`fedimb.data.labels.complete`).
        site, patient: columns, or null.
        train_split, test_split: names of the splits. Without a test split there is no official test set.
        subset: name of the configuration, of a hub data set or in a folder's dataset card, or null.
        revision: commit or tag on the hub, or null. Give one: without it a change of the data is not noticed.
        mode: RGB or L, of images.
        size: [height, width] to resize images to; null: all must have the same size.
        on_bad: `fedimb.data.problems`.
        attributes: columns of ``data.subgroups``.
    """

    path: str
    image: str | None = "image"
    features: list[str] | None = None
    label: str = "label"
    site: str | None = None
    patient: str | None = None
    train_split: str = "train"
    test_split: str | None = "test"
    subset: str | None = None
    revision: str | None = None
    mode: str = "RGB"
    size: tuple[int, int] | None = None
    on_bad: str = "refuse"
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.image is None) == (self.features is None) or self.features == []:
            raise ConfigError("source 'huggingface': give image=<column>, or image=null and features=[columns]")
        check_format("huggingface", self.size, self.mode)

    def fingerprint(self) -> str:
        """From a folder's files, or from the name and revision of a hub data set."""
        folder = self._folder()
        if folder is None:
            return f"huggingface-1-{self.path}-{self.subset}-{self.revision}"
        files = sorted(str(file) for file in folder.rglob("*") if file.is_file() and not file.name.startswith("cache-"))
        return fingerprint("huggingface-1", files)

    def load(self) -> SourceData:
        """Read the splits.

        Raises:
            ConfigError: the datasets package is not installed.
            DataError: no such folder, data set, split or column, or bad rows.
        """
        problems = Problems(self.on_bad)
        splits = self._splits()
        names = self._class_names(splits[0][1])
        rows = _Rows(self.features is not None, several=is_list(splits[0][1].features.get(self.label)))
        rows.named = {
            name: list(names_of)
            for name in self.attributes
            if (names_of := getattr(splits[0][1].features.get(name), "names", None)) is not None
        }
        for split, data in splits:
            if self._class_names(data) != names or is_list(data.features.get(self.label)) != rows.several:
                raise DataError(f"{self.path} split '{split}' has other class names; cast its labels to one ClassLabel")
            narrow = self._narrow(data)
            for number, row in enumerate(self._plain(data, split)):
                row |= {name: kind(row[name]) for name, kind in narrow.items() if row[name] is not None}
                problems.guard(f"{self.path} {split}[{number}]", partial(self._take, row, names, split, rows))
        return rows.assemble(names, problems.settle(len(rows.x)), self)

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """See `fedimb.data.new_rows.NewRows`. The column of labels may be absent."""
        start, at_once = 0, batch_rows(expected.inputs.shape)
        for split, data in self._splits():
            labelled = self.label in data.column_names
            names = self._class_names(data) if labelled else None
            plain = self._plain(data, split, label=labelled)
            for first in range(0, len(plain), at_once):
                rows, x, labels = [], [], []
                for i, row in enumerate(plain.select(range(first, min(first + at_once, len(plain))))):
                    place = f"{self.path} {split}[{first + i}]"
                    if (taken := problems.guard(place, partial(self._new_row, row, names, labelled, expected))) is None:
                        continue
                    rows.append(start + first + i)
                    x.append(taken[0])
                    labels.append(taken[1])
                if rows:
                    known: NDArray[Any] | None = None
                    known = np.array(labels, np.uint8 if expected.several else np.int64) if labelled else None
                    if known is not None and expected.several:
                        known = expected.targets(known)
                    yield RowBatch(np.array(rows, np.int64), np.stack(x), None, known)
            start += len(plain)

    def _new_row(
        self, row: dict[str, Any], names: list[str] | None, labelled: bool, expected: Expected
    ) -> tuple[NDArray[Any], int | list[int]]:
        x = self._values(row)
        if x.shape != expected.inputs.shape:
            raise DataError(f"is {list(x.shape)}, the run's rows are {list(expected.inputs.shape)}")
        label = row[self.label] if labelled else None
        if not labelled or (label in (None, -1) and not expected.several):  # -1: a hidden label of the hub
            return x, UNKNOWN
        if expected.several:
            held = several_labels(label, names)
            for name in held:
                expected.class_id(name)
            return x, [int(name in held) for name in expected.class_names]
        return x, expected.class_id(str(one_label(label, names)))

    def _values(self, row: dict[str, Any]) -> NDArray[Any]:
        if self.image is not None:
            return decode(_bytes(row[self.image]), self.mode, self.size)
        return np.array([_number(name, row[name]) for name in self.features or ()], dtype=np.float32)

    def _folder(self) -> Path | None:
        """The folder that ``path`` refers to; None if it is a name on the hub."""
        # A hub name is name or owner/name.
        local = Path(self.path).is_absolute() or self.path.startswith((".", "~")) or self.path.count("/") > 1
        try:
            return find_data(self.path)
        except DataError as error:
            if local:
                raise
            for name in _OFFLINE:
                if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
                    raise DataError(f"{error}; nor is it fetched from the hub, because {name} is set") from error
            return None

    def _splits(self) -> list[tuple[str, Any]]:
        folder = self._folder()
        datasets = _package()
        try:
            if folder is not None and not is_saved(folder) and is_parquet_layout(folder):
                found = _of_parquet(datasets, parquet_splits(folder, self.subset))
            elif folder is not None:
                found = datasets.load_from_disk(str(folder))
            else:
                found = datasets.load_dataset(self.path, self.subset, revision=self.revision)
        except FedimbError:
            raise
        except Exception as error:  # each file format and the network raise their own kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            what = f"{self.path} is not a data set written by save_to_disk, nor Parquet files by split"
            what = what if folder else f"hub data set '{self.path}'"
            raise DataError(f"{what}: {reason}") from error
        if not isinstance(found, datasets.DatasetDict):
            found = {self.train_split: found}
        if self.train_split not in found:
            raise DataError(f"{self.path} has no split '{self.train_split}'.{nearest(self.train_split, found)}")
        # A data set without a test split is split by another rule of data.test.
        wanted = [self.train_split, *([self.test_split] if self.test_split in found else [])]
        return [(split, found[split]) for split in wanted if split is not None]

    def _plain(self, data: Any, split: str, label: bool | None = None) -> Any:
        """The requested columns, images as bytes: an image that cannot be decoded is then only one bad row.

        ``label``: only the values, and the label or not; None: the site and patient too."""
        named = {"image": self.image, "label": self.label, "site": self.site, "patient": self.patient}
        if label is not None:
            named = {"image": self.image, "label": self.label if label else None}
        wanted = [(setting, name) for setting, name in named.items() if name]
        wanted += [("features", name) for name in self.features or ()]
        wanted += [("data.subgroups", name) for name in self.attributes if label is None]
        for setting, name in wanted:
            if name not in data.column_names:
                near = nearest(name, data.column_names)
                raise DataError(f"{self.path} split '{split}': {setting} names '{name}', which is not a column.{near}")
        data = data.select_columns(list(dict.fromkeys(name for _, name in wanted)))
        if self.image is None:
            return data
        if not isinstance(data.features[self.image], _package().Image):
            raise DataError(
                f"{self.path}: column '{self.image}' does not hold images; cast it to datasets.Image, or use features"
            )
        return data.cast_column(self.image, _package().Image(decode=False))

    def _narrow(self, data: Any) -> dict[str, type[np.floating[Any]]]:
        """Columns of labels, sites and patients in narrow floats: as Python's, they would look exact (2^24 and on)."""
        kinds: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float16": np.float16}
        wanted = (self.label, self.site, self.patient, *self.attributes)
        named = {name: getattr(data.features.get(name), "dtype", "") for name in wanted}
        return {name: kinds[kind] for name, kind in named.items() if name and kind in kinds}

    def _class_names(self, data: Any) -> list[str] | None:
        names = getattr(of_one(data.features.get(self.label)), "names", None)
        return None if names is None else list(names)

    def _take(self, row: dict[str, object], names: list[str] | None, split: str, rows: "_Rows") -> None:
        label = row[self.label]
        if rows.several:
            labels = several_labels(label, names)
        elif isinstance(label, (list, dict)):
            raise DataError("the label is not a class; give one class per row, or a list of classes")
        else:
            labels = (one_label(label, names),)
        texts = {what: row[name] for what, name in (("site", self.site), ("patient", self.patient)) if name}
        for what, value in texts.items():
            if value is None or value == "" or value != value:
                raise DataError(f"the {what} is missing")
            known = identifier(value)  # refuses a float that stands for several whole numbers
            if what == "patient" and names_nobody(known):
                raise DataError(f"the patient is missing ('{value}')")
        x = self._values(row)
        if self.image is not None and rows.x and rows.x[0].shape != x.shape:
            raise DataError(
                f"the image is {list(x.shape[1:])} pixels, the first {list(rows.x[0].shape[1:])}; give size=[h, w]"
            )
        rows.x.append(x)
        rows.labels.append(labels)
        rows.sites.append(_text(texts.get("site", "")))
        rows.patients.append(_text(texts.get("patient", "")))
        rows.test.append(split == self.test_split)
        rows.attributes.append(tuple(_named(row[name], rows.named.get(name)) for name in self.attributes))


def _named(value: object, names: list[str] | None) -> object:
    """A value of an attribute, by name if the column is a ClassLabel; -1 is its "no label"."""
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


@dataclass
class _Rows:
    table: bool
    several: bool
    x: list[NDArray[np.generic]] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    test: list[bool] = field(default_factory=list)
    attributes: list[tuple[object, ...]] = field(default_factory=list)
    named: dict[str, list[str]] = field(default_factory=dict)

    def assemble(self, names: list[str] | None, skipped: tuple[str, ...], source: HuggingFace) -> SourceData:
        if not self.x:
            raise DataError(f"{source.path} has no rows; give a data set with rows")
        x = np.stack(self.x)
        y, targets, class_names = self._classes(names, source)
        sites, site_names = _numbered_sites(self.sites) if source.site else (None, ())
        patients = number_of_each(self.patients)[0] if source.patient else None
        return SourceData(
            x=x,
            y=y,
            class_names=class_names,
            scale=1.0 if self.table else 1 / 255,
            sites=sites,
            site_names=site_names,
            patients=patients,
            official_test=np.array(self.test, dtype=np.bool_) if any(self.test) else None,
            task="multilabel" if self.several else "multiclass",
            targets=targets,
            skipped=skipped,
            scaled=np.ones(x.shape[1], dtype=np.bool_) if self.table else None,
            columns=TableColumns(tuple(source.features)) if source.features else None,
            attributes=attribute_columns_of(source.attributes, self.attributes),
            findings=tuple(name_findings("patients", dict.fromkeys(self.patients), private=True)),
        )

    def _classes(
        self, names: list[str] | None, source: HuggingFace
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8] | None, tuple[str, ...]]:
        if names is None and (marks := no_label_marks({name for labels in self.labels for name in labels})):
            mark, reason = min(marks.items())
            raise DataError(f"{source.path}: label {mark} {reason}; leave its rows out, or cast labels to ClassLabel")
        if not self.several:
            y, class_names = as_ids(np.array([label for (label,) in self.labels]), names)
            return y, None, class_names
        known = names if names is not None else in_order(name for labels in self.labels for name in labels)
        if not known:
            raise DataError(f"{source.path}: no row has a label; give lists of classes")
        return complete(as_targets(self.labels, known), known)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _numbered_sites(sites: list[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """(id of each row's site, names in order); sites are named as first spelled."""
    numbers, spelled = number_of_each(sites)
    names = in_order(spelled)
    return np.array([names.index(name) for name in spelled], dtype=np.int64)[numbers], tuple(names)


def _of_parquet(datasets: ModuleType, splits: dict[str, list[Path]]) -> Any:
    """The splits of Parquet files, in memory: nothing is written to a cache. Class names are those in the files."""
    import pyarrow.parquet

    def read(files: list[Path]) -> Any:
        tables = [datasets.table.InMemoryTable(pyarrow.parquet.read_table(file)) for file in files]
        return datasets.concatenate_datasets([datasets.Dataset(table) for table in tables])

    return datasets.DatasetDict({split: read(files) for split, files in splits.items()})


def _package() -> ModuleType:
    try:
        return import_offline("datasets")  # takes seconds, so only when the data are read
    except ImportError as error:
        raise ConfigError("source 'huggingface' needs the datasets package: pip install datasets") from error


def _bytes(value: Any) -> bytes:
    if value is None:
        raise DataError("the image is missing")
    if value.get("bytes") is not None:
        return bytes(value["bytes"])
    try:
        return Path(value["path"]).read_bytes()
    except (OSError, TypeError) as error:
        raise DataError(f"its file {value.get('path')} cannot be read") from error


def _number(name: str, value: object) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, (bool, int, float)) and abs(value) <= np.finfo(np.float32).max:
        return float(value)
    raise DataError(f"column '{name}': {value!r} is not a finite number; write null for a missing value")
