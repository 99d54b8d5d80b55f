"""Rows of a table added one by one: label, site, patient, split, features; a bad row adds nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fedimb.data.findings.finding import Finding
from fedimb.data.findings.rows import name_findings
from fedimb.data.identifiers import Names, identifier, names_nobody
from fedimb.data.labels import UNKNOWN_CELL, check_row
from fedimb.data.sources.cell_map import CellMap, remedy
from fedimb.data.sources.table_features import MISSING, FeatureColumns
from fedimb.data.sources.table_numbers import NumberFormat
from fedimb.data.sources.table_opened import Block
from fedimb.data.sources.table_target import Target
from fedimb.data.times import TimeColumn
from fedimb.errors import DataError, nearest

_SPLIT = {"train": False, "training": False, "val": False, "validation": False, "test": True}


@dataclass(frozen=True)
class Positions:
    """Indices into the fields of a file's rows. ``target`` of several columns: class name -> index."""

    width: int
    target: int | dict[str, int]
    features: tuple[int, ...]
    patient: int | None = None
    site: int | None = None
    split: int | None = None
    time: int | None = None
    row_id: int | None = None
    attributes: tuple[int, ...] = ()


@dataclass
class Rows:
    """The good rows so far, column by column.

    Args:
        label: the rule for the label, for a target of one column.
        features: collects the feature columns.
        recordable: identifier of a site -> identifiers of the labels it can record, for sites that declare them.
        known_sites: the only sites a row may name; None: any.
        time: reads the column of times.
        missing: marks of missing values in any column, in addition to '', '?' and 'NA'; as identifiers.
        numbers: how a label that is a number is written.
        cells: what the cells of several label columns mean.

    Attributes:
        unknown: of each row with several labels, the classes of which it is not known whether it has them.
        sites: of each row, as first spelled (or as ``known_sites`` spell it).
        attributes: the columns of each row that the run is scored by (`fedimb.data.subgroups`).
    """

    label: Target
    features: FeatureColumns
    recordable: dict[str, set[str]] = field(default_factory=dict)
    known_sites: Sequence[str] | None = None
    time: TimeColumn = field(default_factory=TimeColumn)
    missing: Collection[str] = ()
    numbers: NumberFormat = field(default_factory=NumberFormat)
    cells: CellMap = field(default_factory=lambda: CellMap("", None))
    classes: list[tuple[str, ...]] = field(default_factory=list)
    unknown: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    patients: list[int] = field(default_factory=list)
    test: list[bool] = field(default_factory=list)
    times: list[datetime | int] = field(default_factory=list)
    row_ids: dict[str, None] = field(default_factory=dict)
    attributes: list[tuple[str, ...]] = field(default_factory=list)
    _patient_ids: dict[tuple[str | None, str], int] = field(default_factory=dict)
    _spelled_sites: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known_sites = None if self.known_sites is None else Names(self.known_sites)

    def __len__(self) -> int:
        return len(self.classes)

    def take(self, at: Positions, file_site: str | None, fields: Sequence[str]) -> None:
        """Add one row. ``file_site``: the site of this file; None if rows name their site or there are no sites.

        Raises:
            DataError: the first problem of the row.
        """
        if len(fields) != at.width:
            raise DataError(f"{len(fields)} fields where the table has {at.width} columns")
        unknown: tuple[str, ...] = ()
        if isinstance(at.target, dict):
            raw = label = ""
            names, unknown = flagged(at.target, fields, self.cells, self.missing)
        else:
            raw = self.numbers.normal(fields[at.target])
            if self._is_missing(raw):
                raise DataError("the label is missing" if raw == "" else f"the label is missing ('{raw}')")
            names, label = (self.label(raw),), identifier(raw)
        site = self._site(self.numbers.normal(fields[at.site])) if at.site is not None else file_site
        if self.recordable and label not in (able := self.recordable.get(identifier(site or ""), {label})):
            said = ", ".join(sorted(able))
            raise DataError(f"label '{raw}' is not one that site '{site}' records ({said}); see label_values")
        patient = self.numbers.normal(fields[at.patient]) if at.patient is not None else "-"
        if at.patient is not None and (self._is_missing(patient) or names_nobody(patient)):
            raise DataError("the patient id is missing" + (f" ('{patient}')" * (patient != "")))
        test = _is_test(fields[at.split]) if at.split is not None else False
        time = self.time.read(fields[at.time]) if at.time is not None else None
        row_id = self._row_id(fields[at.row_id], file_site) if at.row_id is not None else None
        self.features.add([fields[i] for i in at.features])
        self.attributes.append(tuple(self.numbers.normal(fields[i]) for i in at.attributes))
        self.classes.append(names)
        self.unknown.append(unknown)
        self.labels.append(label)
        self.sites.append(site or "")
        self.patients.append(self._patient(file_site, patient))
        self.test.append(test)
        if time is not None:
            self.times.append(time)
        if row_id is not None:
            self.row_ids[row_id] = None

    def _row_id(self, text: str, file_site: str | None) -> str:
        """With one file per site, the site's name stands before the id: sites number their rows independently."""
        if text == "":
            raise DataError("the row id is missing")
        found = identifier(text) if file_site is None else f"{file_site}/{identifier(text)}"
        if found in self.row_ids:
            raise DataError(f"row id '{found}' stands for an earlier row already; give each row one of its own")
        return found

    def take_block(self, at: Positions, file_site: str | None, block: Block) -> bool:
        """Add all rows of a block of typed columns at once, as `take` would one by one.

        Returns:
            False: nothing was added, as some row is bad or needs a rule that only `take` has; take the rows one by one.

        Raises:
            DataError: see `Block.texts`.
        """
        site_codes, sites = (None, []) if at.site is None else block.texts(at.site, identifier=True)
        patient_codes, patients = (None, []) if at.patient is None else block.texts(at.patient, identifier=True)
        id_codes, ids = (None, []) if at.row_id is None else block.texts(at.row_id, identifier=True)
        if isinstance(at.target, dict):
            return False
        label_codes, labels = block.texts(at.target, identifier=True)
        if self.recordable:
            return False
        split_codes, splits = (None, []) if at.split is None else block.texts(at.split)
        time_codes, times = (None, []) if at.time is None else block.texts(at.time)
        if any(map(self._is_missing, (*labels, *patients))) or any(map(names_nobody, patients)):
            return False
        if id_codes is not None and len(ids) < len(id_codes):
            return False
        try:
            row_ids = [self._row_id(text, file_site) for text in ids]
            read_times = [self.time.read(text) for text in times]
            names = [(self.label(text),) for text in labels]
            sites = [self._site(text) for text in sites]
            test = [_is_test(text) for text in splits]
        except DataError:
            return False
        grouped = [block.texts(i) for i in at.attributes]
        cells = self.features.encode_block(block, at.features)
        if cells is None or len(set(row_ids)) < len(row_ids):
            return False
        known = [identifier(text) for text in labels]
        numbers = [self._patient(file_site, text) for text in patients]
        n = len(label_codes)
        self.features.add_encoded(cells)
        self.classes += [names[c] for c in label_codes.tolist()]
        self.unknown += [()] * n
        self.labels += [known[c] for c in label_codes.tolist()]
        self.sites += [file_site or ""] * n if site_codes is None else [sites[c] for c in site_codes.tolist()]
        self.patients += (
            [self._patient(file_site, "-")] * n
            if patient_codes is None
            else [numbers[c] for c in patient_codes.tolist()]
        )
        self.test += [False] * n if split_codes is None else [test[c] for c in split_codes.tolist()]
        self.times += [] if time_codes is None else [read_times[c] for c in time_codes.tolist()]
        self.row_ids |= dict.fromkeys(row_ids)
        self.attributes += zip(*([texts[c] for c in codes.tolist()] for codes, texts in grouped), strict=True)
        if not grouped:
            self.attributes += [()] * n
        return True

    def _patient(self, file_site: str | None, patient: str) -> int:
        # Hospitals number patients independently: the same number in two files means two people.
        return self._patient_ids.setdefault((file_site, identifier(patient)), len(self._patient_ids))

    def findings(self) -> list[Finding]:
        """Patients whose ids differ in spelling only."""
        return list(name_findings("patients", [patient for _, patient in self._patient_ids], private=True))

    def _is_missing(self, text: str) -> bool:
        return text in MISSING or (bool(self.missing) and identifier(text) in self.missing)

    def _site(self, name: str) -> str:
        if self._is_missing(name):
            raise DataError("the site is missing")
        if self._known_sites is None:
            return self._spelled_sites.setdefault(identifier(name), name)
        if (known := self._known_sites.name(name)) is None:
            raise DataError(f"site '{name}' is not in site_names.{nearest(name, self.known_sites or ())}")
        return known


def flagged(
    columns: dict[str, int], fields: Sequence[str], cells: CellMap, missing: Collection[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes whose column is 1, and those whose column is unknown.

    Raises:
        DataError: a cell that is neither 0 nor 1, and that ``cells`` does not explain.
    """
    found = {name: cells.of(name, fields[i]) for name, i in columns.items()}
    for name, i in columns.items():
        if found[name] is None:
            text = fields[i]
            if text in MISSING or identifier(text) in missing:
                shown = f" ('{text}')" if text else ""
                raise DataError(f"target '{name}' is missing{shown}{remedy(text)}")
            raise DataError(f"target '{name}' is '{text}', neither 0 nor 1{remedy(text)}")
    names = tuple(name for name, means in found.items() if means == 1)
    check_row(names)
    return names, tuple(name for name, means in found.items() if means == UNKNOWN_CELL)


def _is_test(text: str) -> bool:
    if text.lower() not in _SPLIT:
        raise DataError(f"split '{text}' is not one of train, validation, test")
    return _SPLIT[text.lower()]
