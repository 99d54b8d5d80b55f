"""CSV as spreadsheets write and read it: separators, byte order marks, line ends, and cells that must not be formulas.

Writing follows OWASP's rules against CSV injection; reading accepts what Excel and LibreOffice save.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedimb.errors import DataError

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: text that looks like one gets a leading apostrophe."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) or text.startswith("'") else text


def without_apostrophe(text: str) -> str:
    """Inverse of `safe_cell`."""
    return text[1:] if text.startswith("'") else text


def shown_cell(text: str) -> str:
    """Foreign text for a message: on one line, without control characters, at most 40 characters."""
    one_line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return one_line if len(one_line) <= 40 else f"{one_line[:40]}..."


def csv_bytes(rows: Iterable[Sequence[str]], separator: str = ",") -> bytes:
    """Rows as UTF-8 with a byte order mark and CRLF, which both Excel and LibreOffice read correctly."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode("utf-8-sig")


@dataclass(frozen=True)
class Line:
    """One record of a table: its first line in the file (from 1) and its stripped cells by column."""

    number: int
    cells: dict[str, str]


def read_table(path: Path, wanted: Sequence[Sequence[str]]) -> tuple[list[Line], list[str]]:
    """(records, problems) of a CSV file. Empty records are left out.

    Accepts the separators ``,``, ``;`` and tab; UTF-8 with and without byte order mark, UTF-16 with one, Windows'
    Western code page; CRLF, LF and CR; quoted cells; a first line ``sep=;``. Column names are case-insensitive.

    Args:
        wanted: the required columns, each as a list of accepted names.

    Raises:
        DataError: not a CSV file, or a column is missing.
    """
    text = _decoded(path)
    first, start = text.partition("\n")[0].strip().strip('"').lower(), 0
    if first.startswith("sep=") and len(first) == 5:
        text, start = text.partition("\n")[2], 1
    separator = max(";,\t", key=lambda s: _fitting(text, s, wanted))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header: list[str] | None = None
    lines, problems, end = [], [], 0
    try:
        for cells in reader:
            number, end = start + end + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip().casefold() for cell in cells]
                _check_header(path, number, header, wanted)
                continue
            if any(cell.strip() for cell in cells[len(header) :]):
                problems.append(
                    f"{path.name} line {number}: {len(cells)} cells below {len(header)} columns; quote cells that "
                    f"contain the separator '{separator}'"
                )
                continue
            padded = [*cells, *[""] * (len(header) - len(cells))]
            lines.append(Line(number, {name: cell.strip() for name, cell in zip(header, padded, strict=False)}))
    except csv.Error as error:
        raise DataError(
            f"{path.name} line {start + reader.line_num}: not readable as CSV ({error}); save it as CSV again"
        ) from error
    if header is None:
        raise DataError(f"{path.name} line 1: the file is empty; save the filled-in tasks.csv under this name")
    return lines, problems


def _decoded(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the name and its permissions") from error
    if data.startswith(_WORKBOOKS):
        raise DataError(f"{path.name} line 1: this is a spreadsheet file; choose save as, CSV in the spreadsheet")
    try:
        text = data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError as error:
            raise DataError(f"{path.name} line 1: neither UTF-8 nor Windows text; save it as CSV UTF-8") from error
    if "\0" in text:
        raise DataError(f"{path.name} line 1: not a text file; save it as CSV")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _fitting(text: str, separator: str, wanted: Sequence[Sequence[str]]) -> int:
    """How many of the wanted columns the first line has when split at ``separator``."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    names = {cell.strip().casefold() for cells in csv.reader([first], delimiter=separator) for cell in cells}
    return sum(not names.isdisjoint(some) for some in wanted)


def _check_header(path: Path, number: int, header: list[str], wanted: Sequence[Sequence[str]]) -> None:
    for some in wanted:
        if not set(header) & set(some):
            found = ", ".join(map(shown_cell, header[:8]))
            raise DataError(
                f"{path.name} line {number}: no column '{some[-1]}' (found: {found}); keep the first line of tasks.csv "
                "as it is"
            )
        if any(header.count(name) > 1 for name in some):
            raise DataError(f"{path.name} line {number}: column '{some[0]}' occurs twice; keep one")
