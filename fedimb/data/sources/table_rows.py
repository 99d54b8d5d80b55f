"""Rows of a table added one by one: label, site, patient, split, features; a bad row adds nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from fedimb.data.findings.finding import Finding
from fedimb.data.findings.rows import name_findings
from fedimb.data.identifiers import Names, identifier
from fedimb.data.labels import check_row
from fedimb.data.sources.table_features import MISSING, FeatureColumns
from fedimb.data.sources.table_numbers import NumberFormat, is_mark
from fedimb.data.sources.table_target import Target
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


@dataclass
class Rows:
    """The good rows so far, column by column.

    Args:
        label: the rule for the label, for a target of one column.
        features: collects the feature columns.
        recordable: identifier of a site -> identifiers of the labels it can record, for sites that declare them.
        known_sites: the only sites a row may name; None: any.
        missing: marks of missing values in any column, in addition to '', '?' and 'NA'; as identifiers.
        numbers: how a label that is a number is written.

    Attributes:
        sites: of each row, as first spelled (or as ``known_sites`` spell it).
    """

    label: Target
    features: FeatureColumns
    recordable: dict[str, set[str]] = field(default_factory=dict)
    known_sites: Sequence[str] | None = None
    missing: Collection[str] = ()
    numbers: NumberFormat = field(default_factory=NumberFormat)
    classes: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    patients: list[int] = field(default_factory=list)
    test: list[bool] = field(default_factory=list)
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
        if isinstance(at.target, dict):
            raw = label = ""
            names = flagged(at.target, fields, self.missing)
        else:
            raw = self.numbers.normal(fields[at.target])
            if self._is_missing(raw):
                raise DataError("the label is missing" if raw == "" else f"the label is missing ('{raw}')")
            names, label = (self.label(raw),), identifier(raw)
        site = self._site(fields[at.site]) if at.site is not None else file_site
        if self.recordable and label not in (able := self.recordable.get(identifier(site or ""), {label})):
            said = ", ".join(sorted(able))
            raise DataError(f"label '{raw}' is not one that site '{site}' records ({said}); see label_values")
        patient = fields[at.patient] if at.patient is not None else "-"
        # A mark as an id would make one person of all whose id is missing.
        if at.patient is not None and (self._is_missing(patient) or is_mark(patient)):
            raise DataError("the patient id is missing" + (f" ('{patient}')" * (patient != "")))
        test = _is_test(fields[at.split]) if at.split is not None else False
        self.features.add([fields[i] for i in at.features])
        self.classes.append(names)
        self.labels.append(label)
        self.sites.append(site or "")
        # Hospitals number patients independently: the same number in two files means two people.
        self.patients.append(self._patient_ids.setdefault((file_site, identifier(patient)), len(self._patient_ids)))
        self.test.append(test)

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


def flagged(columns: dict[str, int], fields: Sequence[str], missing: Collection[str] = ()) -> tuple[str, ...]:
    """The classes whose column is 1."""
    for name, i in columns.items():
        if fields[i] in MISSING or identifier(fields[i]) in missing:
            raise DataError(f"target '{name}' is missing")
        if identifier(fields[i]) not in ("0", "1"):
            raise DataError(f"target '{name}' is '{fields[i]}', neither 0 nor 1")
    names = tuple(name for name, i in columns.items() if identifier(fields[i]) == "1")
    check_row(names)
    return names


def _is_test(text: str) -> bool:
    if text.lower() not in _SPLIT:
        raise DataError(f"split '{text}' is not one of train, validation, test")
    return _SPLIT[text.lower()]
