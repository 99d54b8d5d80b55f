"""Text tables (CSV) as rows of stripped fields under named columns."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from fedimb.data.sources.files import regular_file
from fedimb.errors import DataError, nearest

Record = tuple[str, list[str]]
_DELIMITERS = {",": "','", ";": "';'", "\t": "'\\t'", "|": "'|'"}


@dataclass(frozen=True)
class Layout:
    """The file format of one table.

    Args:
        header: whether the first row names the columns.
        columns: names in order; required without a header, otherwise checked against it.
        delimiter: one character.
        encoding: a Python encoding name; in UTF-8 a byte order mark is ignored.
    """

    header: bool = True
    columns: tuple[str, ...] | None = None
    delimiter: str = ","
    encoding: str = "utf-8"


def read_table(path: str, layout: Layout) -> tuple[tuple[str, ...], Iterator[Record]]:
    """Column names, and an iterator over (place, fields): place is ``path row 17``, counted from 1.

    Rows may have any number of fields: the caller checks it. Blank rows are skipped.

    Raises:
        DataError: no such file, no rows, an invalid header, missing or duplicate names; while iterating, bytes that are
            not text in ``layout.encoding``, or unclosed quotes.
    """
    records = _records(path, layout)
    first = next(records, None)
    if first is None:
        raise DataError(f"{path} is empty; give a file with rows")
    _check_delimiter(*first, layout)
    names = _names(*first, layout)
    data = next(records, None) if layout.header else first
    if data is None:
        raise DataError(f"{path} has a header but no rows; add rows or leave the file out")
    return names, chain([data], records)


def column(name: str, names: tuple[str, ...], setting: str, path: str) -> int:
    """Position of a column. DataError names the setting that refers to it and the nearest column."""
    if name not in names:
        raise DataError(
            f"{setting} names '{name}', which is not a column of {path}.{nearest(name, names)}"
            " (a file without a header row needs header=false and columns=[...])"
        )
    return names.index(name)


def number(text: str) -> float | None:
    """The number in ``text``, or None: 1_000 and other Python-only spellings are not numbers."""
    if "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _records(path: str, layout: Layout) -> Iterator[Record]:
    file = regular_file(path)
    encoding = "utf-8-sig" if layout.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else layout.encoding
    number_of_row = blank = records = 0
    try:
        with file.open(newline="", encoding=encoding) as lines:
            reader = csv.reader(lines, delimiter=layout.delimiter, skipinitialspace=True, strict=True)
            for number_of_row, fields in enumerate(reader, start=1):
                stripped = [field.strip() for field in fields]
                if stripped in ([], [""]):
                    blank = blank or number_of_row * bool(records)
                    continue
                if blank and len(stripped) == 1:  # without it, later rows would answer for earlier ones
                    raise DataError(
                        f"{path} row {blank} is blank in a table of one column: write NA if its value is missing, or "
                        "remove the line"
                    )
                records += 1
                yield f"{path} row {number_of_row}", stripped
    except UnicodeError as error:
        raise DataError(f"{path} is not text in {layout.encoding} ({error}); give its encoding=...") from error
    except csv.Error as error:
        raise DataError(f"{path} row {number_of_row + 1}: {error}; fix the quotes, or check delimiter=...") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _check_delimiter(place: str, fields: list[str], layout: Layout) -> None:
    if len(fields) > 1 or (layout.columns is not None and len(layout.columns) == 1):
        return
    for sign, shown in _DELIMITERS.items():
        if sign in fields[0]:
            raise DataError(f"{place} is a single field with {shown} in it: give delimiter={shown}")


def _names(place: str, first: list[str], layout: Layout) -> tuple[str, ...]:
    given = layout.columns
    if not layout.header:
        if tuple(first) == given:
            raise DataError(f"{place} holds the column names; set header=true")
        return given or ()
    if all(number(field) is not None for field in first):
        raise DataError(f"{place} holds numbers, not column names; set header=false and give columns=[...]")
    if "" in first:
        raise DataError(f"{place}: column {first.index('') + 1} has no name; name it (and drop it if it is not needed)")
    if twice := next((name for i, name in enumerate(first) if name in first[:i]), None):
        raise DataError(f"{place}: column '{twice}' occurs twice; rename one")
    if given is not None and tuple(first) != given:
        wrong = next(
            (i for i, (a, b) in enumerate(zip(first, given, strict=False)) if a != b), min(len(first), len(given))
        )
        raise DataError(f"{place}: the header and columns=[...] differ from column {wrong + 1} on; remove columns")
    return tuple(first)
