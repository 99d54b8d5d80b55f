"""Rows of an .npz file to one `SourceData`: values, labels, and the site, patient and test set of each row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import AttributeColumn, SourceData
from fedimb.data.findings.finding import Finding
from fedimb.data.findings.rows import name_findings
from fedimb.data.labels import UNKNOWN_CELL, complete
from fedimb.data.problems import Problems
from fedimb.data.sources.npz_file import NpzFile, per_row, read_names, read_values
from fedimb.data.sources.npz_labels import (
    BAD,
    Column,
    LabelRule,
    NameList,
    apply_meaning,
    find_meaning,
    kind_of,
    read_column,
    read_several,
)
from fedimb.errors import DataError, nearest

Prepare = Callable[[NDArray[np.generic], NDArray[np.bool_]], tuple[NDArray[np.generic], NDArray[np.bool_]]]
"""(values [n, ...], [n] usable rows) -> (values as the source gives them, usable rows)."""


@dataclass(frozen=True)
class PartKeys:
    """Names of the arrays of one part of a file. Only ``x`` and ``y`` must be there.

    Args:
        test: an array of booleans, or whether all rows are test rows.
        prefix: of the names of this part's arrays, for those that a run is scored by.
    """

    x: str = "x"
    y: str = "y"
    sites: str = "sites"
    patients: str = "patients"
    test: str | bool = "test"
    prefix: str = ""


PLAIN = PartKeys()


@dataclass
class _Part:
    x: NDArray[np.generic]
    good: NDArray[np.bool_]
    labels: Column | NDArray[np.uint8]
    sites: Column | None
    patients: Column | None
    test: NDArray[np.bool_]
    attributes: dict[str, NDArray[Any]]


def read_rows(
    arrays: NpzFile,
    parts: Sequence[PartKeys],
    rule: LabelRule,
    site_names: NameList | None,
    prepare: Prepare,
    problems: Problems,
    divide_by: float | None = None,
    attributes: Sequence[str] = (),
    also: Mapping[str, NDArray[Any]] | None = None,
) -> SourceData:
    """All rows of the parts, one after another.

    Args:
        divide_by: what the model gets x divided by; None: 255 for uint8, 1 for float.
        attributes: names of arrays [n] that the run is scored by.
        also: further columns of `SourceData` [n], by name; of a file of one part.
        rule: what labels mean; the file's ``class_names`` count where it has none.
        site_names: as ``class_names`` of the rule.

    Raises:
        DataError: arrays missing or of the wrong shape or type, parts that differ, bad rows.
    """
    rule = rule.with_names(read_names(arrays, "class_names"))
    site_names = site_names if site_names is not None else read_names(arrays, "site_names")
    read = [_read_part(arrays, keys, rule, prepare, problems, attributes) for keys in parts]
    for keys, part in zip(parts[1:], read[1:], strict=True):
        _check_alike(arrays.path, keys, part, read[0])
    for what in ("sites", "patients"):
        if len({getattr(part, what) is None for part in read}) > 1:
            raise DataError(
                f"{arrays.path} has {what} for some parts and not for others; give them for all, or for none"
            )
    if site_names is not None and read[0].sites is None:
        raise DataError(f"{arrays.path} has site_names but no sites; add sites, one per row")
    y, targets, class_names, label_names = _classes(arrays.path, read, rule, problems)
    sites, site_list = _sites(read, site_names, problems)
    patients = _patients(read)
    kept = [part.good for part in read]
    skipped = problems.settle(sum(int(good.sum()) for good in kept))
    several = None if targets is None else complete(_joined(targets, kept), class_names)
    is_test = _joined([part.test for part in read], kept)
    x = _joined([part.x for part in read], kept)
    data = SourceData(
        x=x,
        y=_joined(y, kept) if several is None else several[0],
        class_names=class_names if several is None else several[2],
        scale=1 / (divide_by or (255 if x.dtype == np.uint8 else 1)),
        sites=None if sites is None else _joined(sites, kept),
        site_names=site_list,
        patients=None if patients is None else _joined(patients, kept),
        official_test=is_test if is_test.any() or parts[0].test in arrays.keys else None,
        task="multiclass" if several is None else "multilabel",
        targets=None if several is None else several[1],
        skipped=skipped,
        label_names=label_names,
        findings=tuple(_alike(read)),
        attributes={
            name: AttributeColumn.of(_joined([part.attributes[name] for part in read], kept)) for name in attributes
        },
    )
    further: dict[str, Any] = {name: _joined([values], kept) for name, values in (also or {}).items()}
    return replace(data, **further)


def _read_part(
    arrays: NpzFile, keys: PartKeys, rule: LabelRule, prepare: Prepare, problems: Problems, attributes: Sequence[str]
) -> _Part:
    x, good = read_values(arrays, keys.x, problems)
    n = len(x)
    labels: Column | NDArray[np.uint8]
    if (kind := kind_of(arrays, keys.y, n, rule.labels)) == "several":
        names = rule.class_names
        if isinstance(names, dict) or rule.label_map is not None or rule.ignored:
            raise DataError(
                f"{arrays.path} {keys.y} has columns, several labels per row: give class_names as a list, and no "
                "label_map or ignore_label; or labels=onehot"
            )
        labels, good = read_several(arrays, keys.y, good, names, problems, rule.cells)
    elif rule.cell_map is not None:
        raise DataError(
            f"{arrays.path} {keys.y} has one label per row, and cell_map is for columns of 0 and 1: leave it out"
        )
    else:
        labels = read_column(arrays, keys.y, good, problems, ignored=rule.ignored, onehot=kind == "onehot")
        good = good & (labels.of_row != BAD)
    x, good = prepare(x, good)
    sites, patients = (
        read_column(arrays, key, good, problems, what) if key in arrays.keys else None
        for key, what in ((keys.sites, "site"), (keys.patients, "patient"))
    )
    for column in (sites, patients):
        good = good if column is None else good & (column.of_row >= 0)
    grouped = {name: per_row(arrays, keys.prefix + name, n) for name in attributes}
    return _Part(x, good, labels, sites, patients, _test(arrays, keys.test, n), grouped)


def check_attributes(arrays: NpzFile, keys: Sequence[str]) -> None:
    """Check that the arrays that a run is scored by are there. Raises DataError with the nearest name."""
    for key in keys:
        if key not in arrays.keys:
            near = nearest(key, arrays.keys)
            raise DataError(f"{arrays.path}: data.subgroups names '{key}', which is not an array.{near}")


def _test(arrays: NpzFile, key: str | bool, n: int) -> NDArray[np.bool_]:
    if isinstance(key, bool) or key not in arrays.keys:
        return np.full(n, key is True)
    test: NDArray[Any] = per_row(arrays, key, n)
    if test.dtype != np.bool_:
        raise DataError(f"{arrays.path} {key} is {test.dtype}; give bool, True for a row of the test set")
    return test


def _width(labels: Column | NDArray[np.uint8]) -> int | None:
    """Number of columns; None of one id per row."""
    if not isinstance(labels, Column):
        return int(labels.shape[1])
    return len(labels.keys) if labels.every else None


def _check_alike(path: str, keys: PartKeys, part: _Part, first: _Part) -> None:
    columns = [_width(one.labels) for one in (first, part)]
    if columns[0] != columns[1]:
        shown = ["one class id" if c is None else f"{c} columns" for c in columns]
        raise DataError(f"{path} {keys.y} has {shown[1]} per row but earlier parts have {shown[0]}; use one layout")
    kinds = [one.labels.text if isinstance(one.labels, Column) else False for one in (first, part)]
    if part.x.shape[1:] != first.x.shape[1:] or part.x.dtype != first.x.dtype or kinds[0] != kinds[1]:
        raise DataError(f"{path}: {keys.x} and {keys.y} differ from the other parts in shape or type")


def _classes(
    path: str, parts: list[_Part], rule: LabelRule, problems: Problems
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.uint8]] | None, tuple[str, ...], dict[str, str] | None]:
    """(class ids of each part, targets of each part or None, class names, labels by name for new rows)."""
    columns = [part.labels for part in parts if isinstance(part.labels, Column)]
    if not columns:
        targets = [np.asarray(part.labels) for part in parts]
        onehot = not problems.lines and all(
            ((held == 1).sum(axis=1) == 1).all() and held.max(initial=0) < UNKNOWN_CELL for held in targets
        )
        if rule.labels is None and onehot and sum(map(len, targets)) > 1:
            raise DataError(
                f"{path} has labels in {targets[0].shape[1]} columns with a single 1 in every row: give labels=onehot "
                "if a row has one class, or labels=several if it may have several"
            )
        names = rule.class_names if isinstance(rule.class_names, list) else None
        return [], targets, tuple(names or map(str, range(targets[0].shape[1]))), None
    found = set[str]().union(*(column.found(part.good) for column, part in zip(columns, parts, strict=True)))
    meaning = find_meaning(columns, found, rule.class_names, rule.label_map)
    ids = []
    for column, part in zip(columns, parts, strict=True):
        y, part.good = apply_meaning(column, meaning, part.good, problems)
        ids.append(y)
    return ids, None, meaning.names, meaning.label_names()


def _sites(
    parts: list[_Part], names: NameList | None, problems: Problems
) -> tuple[list[NDArray[np.int64]] | None, tuple[str, ...]]:
    columns = [part.sites for part in parts if part.sites is not None]
    if not columns:
        return None, ()
    found = set[str]().union(*(column.found(part.good) for column, part in zip(columns, parts, strict=True)))
    meaning = find_meaning(columns, found, names, what="site")
    ids = []
    for column, part in zip(columns, parts, strict=True):
        of_row, part.good = apply_meaning(column, meaning, part.good, problems, "site")
        ids.append(of_row)
    return ids, meaning.names


def _patients(parts: list[_Part]) -> list[NDArray[np.int64]] | None:
    columns = [part.patients for part in parts if part.patients is not None]
    if not columns:
        return None
    number: dict[str, int] = {}
    for column in columns:
        for key in column.keys:
            number.setdefault(key, len(number))
    return [
        np.array([*(number[key] for key in column.keys), -1], dtype=np.int64)[np.maximum(column.of_row, -1)]
        for column in columns
    ]


def _alike(parts: list[_Part]) -> Iterator[Finding]:
    """Patients whose ids differ in spelling only."""
    keys = [part.patients.keys for part in parts if part.patients is not None]
    return name_findings("patients", dict.fromkeys(chain(*keys)), private=True)


def _joined(arrays: Sequence[NDArray[Any]], kept: Sequence[NDArray[np.bool_]]) -> NDArray[Any]:
    parts = [array if good.all() else array[good] for array, good in zip(arrays, kept, strict=True)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
