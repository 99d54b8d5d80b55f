"""From a CSV of labelled image files to rows; every unusable line is reported."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from fedimb.data.identifiers import Names, identifier, in_order, is_whole, no_label_marks
from fedimb.data.labels import check_row
from fedimb.data.new_rows import Expected
from fedimb.data.problems import Problems
from fedimb.data.sources.image_files import clean_name
from fedimb.data.sources.image_rows import ImageRow
from fedimb.data.sources.new_pictures import NewPicture
from fedimb.data.sources.table_file import Layout, column, read_table
from fedimb.data.times import TimeColumn
from fedimb.errors import DataError, nearest

ALIKE = 0.8  # from which a column's name is taken for a misspelt one: patient_id, Patient
_SPLIT = {"train": False, "training": False, "val": False, "validation": False, "test": True}


@dataclass(frozen=True)
class Columns:
    """Column names. ``site``, ``patient`` and ``split`` are optional under these default names; under any other name
    the column is required; None: not used.

    Args:
        file_setting: the setting that gives ``file``, for messages.
        label_separator: separator between several labels of a row, as in ``mass|nodule``; None: one label per row.
        time: the column of times, required if given; time_format: see `fedimb.data.times.as_time`.
        attributes: columns that the run is scored by (`fedimb.data.subgroups`), required if given.
        find_file: (cell of ``file``, the row by column names) -> file name; None: the cell is the name.
    """

    file: str
    label: str = "label"
    site: str | None = "site"
    patient: str | None = "patient"
    split: str | None = "split"
    file_setting: str = "path_column"
    label_separator: str | None = None
    time: str | None = None
    time_format: str | None = None
    find_file: Callable[[str, Mapping[str, str]], str] | None = None
    attributes: tuple[str, ...] = ()

    def name(self, cell: str, names: Sequence[str], fields: Sequence[str]) -> str:
        """The file of a row, as a clean relative name. DataError if it cannot be found or leads outside the root."""
        if self.find_file is None:
            return clean_name(cell)
        if not cell:
            raise DataError("the name of the file is empty")
        return clean_name(self.find_file(cell, dict(zip(names, fields, strict=True))))

    def positions(self, names: tuple[str, ...], path: str) -> dict[str, int]:
        """Role -> index into a row's fields. Raises DataError if a column is missing."""
        at = {
            "file": column(self.file, names, self.file_setting, path),
            "label": column(self.label, names, "label_column", path),
        }
        for role in ("site", "patient", "split"):
            name = getattr(self, role)
            if name is not None and (name != role or name in names):
                at[role] = column(name, names, f"{role}_column", path)
        unread = {name.casefold(): name for name in names if name not in {names[i] for i in at.values()}}
        for role in ("site", "patient", "split"):
            # A group that is not read is taken apart: patients on two sides.
            if getattr(self, role) == role and role not in at:
                for close in difflib.get_close_matches(role, [n for n in unread if unread[n] != self.time], 1, ALIKE):
                    raise DataError(
                        f"{path} has a column '{unread[close]}', which is not read; if it is the {role}, give "
                        f"{role}_column={unread[close]}, else {role}_column=null"
                    )
        if self.time is not None:
            at["time"] = column(self.time, names, "time_column", path)
        return at


def read_rows(
    path: str, layout: Layout, columns: Columns, classes: Sequence[str] | None, problems: Problems
) -> tuple[list[ImageRow], tuple[str, ...]]:
    """(rows in the order of the CSV, class names).

    A label is a class's name or, if no class name is a number, its id. Without ``classes`` the classes are the labels
    in the CSV, numbers sorted by value. With ``columns.label_separator`` a row has one or more labels. If a file is
    listed twice, the first line counts, or none if the labels differ.

    Raises:
        DataError: the CSV as a whole cannot be read, or a label consists of several classes.
    """
    names, records = read_table(path, layout)
    at = columns.positions(names, path)
    grouped = tuple(column(name, names, "data.subgroups", path) for name in columns.attributes)
    known = None if classes is None else Names(classes)
    rows = []
    times = TimeColumn(columns.time_format)
    for place, fields in records:
        label = fields[at["label"]] if len(fields) == len(names) else ""
        if columns.label_separator is None and "|" in label and (known is None or label not in known):
            raise DataError(
                f"{place}: label '{label}' names several classes; give one class per image, or label_separator=\"|\""
            )
        if row := problems.guard(place, partial(_row, place, fields, at, names, known, columns, times)):
            row.attributes = tuple(fields[i] for i in grouped)
            rows.append(row)
    rows = _once(rows, problems)
    if classes is None and (marks := no_label_marks(name for row in rows for name in row.classes)):
        mark, reason = min(marks.items())
        raise DataError(f"{path}: label {mark} {reason}; leave its rows out, or list it in classes")
    return rows, tuple(classes or in_order(name for row in rows for name in row.classes))


def new_pictures(
    path: str, layout: Layout, columns: Columns, expected: Expected, problems: Problems
) -> tuple[bool, Iterator[NewPicture]]:
    """Whether the CSV has the column of labels, and its rows: (place, file, class names or None).

    Raises:
        DataError: the CSV as a whole cannot be read, or it has no column of files.
    """
    names, records = read_table(path, layout)
    at = column(columns.file, names, columns.file_setting, path)
    label_at = names.index(columns.label) if columns.label in names else None
    classes = Names(expected.class_names)

    def row(fields: list[str]) -> tuple[str, tuple[str, ...] | None]:
        if len(fields) != len(names):
            raise DataError(f"{len(fields)} fields where the table has {len(names)} columns")
        name = columns.name(fields[at], names, fields)
        text = "" if label_at is None else fields[label_at]
        if text == "":
            return name, None
        parts = [text] if columns.label_separator is None else [p.strip() for p in text.split(columns.label_separator)]
        labels = tuple(_class(part, classes) for part in parts)
        check_row(labels)
        return name, labels

    def rows() -> Iterator[NewPicture]:
        for place, fields in records:
            found = problems.guard(place, partial(row, fields))
            yield place, *(("", None) if found is None else found)

    return label_at is not None, rows()


def _row(
    place: str,
    fields: list[str],
    at: dict[str, int],
    names: tuple[str, ...],
    classes: Names | None,
    columns: Columns,
    times: TimeColumn,
) -> ImageRow:
    if len(fields) != len(names):
        raise DataError(f"{len(fields)} fields where the table has {len(names)} columns")
    said = {role: fields[i] for role, i in at.items()}
    name, separator = columns.name(said["file"], names, fields), columns.label_separator
    for role, value in said.items():
        if value == "":
            raise DataError(f"the {role} of '{name}' is empty")
    if "split" in said and said["split"].lower() not in _SPLIT:
        raise DataError(f"split '{said['split']}' is not one of train, validation, test")
    test = _SPLIT[said["split"].lower()] if "split" in said else None
    row = ImageRow(place, name, "", said.get("site"), said.get("patient"), test)
    row.time = times.read(said["time"]) if "time" in said else None
    if separator is None:
        row.label = _class(said["label"], classes)
        return row
    parts = [part.strip() for part in said["label"].split(separator)]
    if "" in parts:
        raise DataError(f"one of the labels '{said['label']}' is empty")
    row.labels = tuple(_class(part, classes) for part in parts)
    check_row(row.labels)
    row.label = separator.join(sorted(row.labels))
    return row


def _class(label: str, classes: Names | None) -> str:
    if classes is None:
        return identifier(label)
    if (known := classes.name(label)) is not None:
        return known
    number = identifier(label)
    if is_whole(number) and not any(map(is_whole, classes.names)):
        if 0 <= int(number) < len(classes.names):
            return classes.names[int(number)]
        raise DataError(f"label {label} is outside the class ids 0 to {len(classes.names) - 1}")
    raise DataError(f"label '{label}' is not in classes.{nearest(label, classes.names)}")


def _once(rows: list[ImageRow], problems: Problems) -> list[ImageRow]:
    by_name: dict[str, list[ImageRow]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    kept = []
    for row in rows:
        same = by_name[row.name]
        other = next((one for one in same if one.label != row.label), None)
        if other is not None:
            problems.add(row.place, f"'{row.name}' is '{row.label}' here and '{other.label}' in {other.place}")
        elif row is not same[0]:
            problems.add(row.place, f"'{row.name}' is already listed in {same[0].place}")
        else:
            kept.append(row)
    return kept
