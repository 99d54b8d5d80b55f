"""One rule for identifiers: labels, categories, patients, sites and devices, in every source and for new rows.

Two values are equal if they are the same whole number (``100``, ``100.0`` and ``" 100 "``), or else the same text,
exactly: ``0012`` and ``12``, ``P1`` and ``p1``, ``1E2`` and ``100`` differ. The rule looks at a value alone, never at
its column or file, and no value passes through float64. Names that differ and look the same are found by `look_alikes`.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import DataError

READING = 3
"""Raised when sources read the same files to other arrays, so that no cache of before is used."""

_WHOLE = re.compile(r"([+-]?)(0|[1-9][0-9]*)(?:\.0+)?")
_NOBODY = frozenset(("", ".", "?", "-", "--", "nan", "n/a", "n.a.", "na", "#n/a", "<na>", "nat", "null", "none", "nil"))
_MARKS = ("-1", "-100", "255", "65535")  # ids that other tools use for "no label"
_LARGEST_EXPONENT = 400  # beyond it two spellings of a number are not compared by value


def identifier(value: object) -> str:
    """The identifier of a value: equal for equal values, different for different ones.

    A whole number is its digits; anything else its exact text.

    Args:
        value: text, bytes of UTF-8, a whole number of any size, a boolean (``True`` or ``False``), or a float.

    Raises:
        DataError: a float so large that neighbouring whole numbers have the same float (2^53 in float64), NaN,
            infinity, or bytes that are not UTF-8.

    Example:
        >>> [identifier(value) for value in (100, "100.0", " +100 ", 100.0, "0100", "1E2")]
        ['100', '100', '100', '100', '0100', '1E2']
        >>> identifier("999000011000000103")
        '999000011000000103'
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise DataError(f"{value!r} is not text in UTF-8; save it as text") from None
    if isinstance(value, str):
        found = _WHOLE.fullmatch(value.strip())
        if found is None:
            return str(value)
        sign, digits = found.groups()
        return f"-{digits}" if sign == "-" and digits != "0" else digits
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return _of_float(value)
    return str(value)


def _of_float(value: float | np.floating) -> str:
    if not np.isfinite(value):
        raise DataError(f"{value} is not an identifier; leave the row out, or write one")
    if value != np.floor(value):
        return str(value)
    bits = np.finfo(type(value) if isinstance(value, np.floating) else np.float64).nmant + 1
    if abs(value) >= 2**bits:
        raise DataError(
            f"{value} is a floating-point number: whole numbers from 2^{bits} on are rounded in it, so that different "
            "ids become one; save the ids as whole numbers (int64) or text"
        )
    return str(int(value))


def names_nobody(patient: str) -> bool:
    """Whether a patient's id is a mark for a missing one: it would make one person of all who have none."""
    return patient.strip().lower() in _NOBODY


def is_whole(name: str) -> bool:
    """Whether an identifier is a whole number."""
    found = _WHOLE.fullmatch(name)
    return found is not None and "." not in name and not name.startswith("+")


def in_order(values: Iterable[str]) -> list[str]:
    """Distinct identifiers, sorted: as numbers (exactly, whatever their size) if all are numbers, else as text."""
    distinct = set(values)
    numbers = {value: _number(value) for value in distinct}
    if None in numbers.values():
        return sorted(distinct)
    return sorted(distinct, key=lambda value: (numbers[value], value))


def _number(text: str) -> Decimal | None:
    if "_" in text:
        return None
    try:
        found = Decimal(text.strip())
    except InvalidOperation:
        return None
    return None if found.is_nan() else found


class Names:
    """Names found by identifier: the name that stands for a value, whatever its spelling.

    Args:
        names: in order.

    Attributes:
        names: as given.

    Example:
        >>> Names(["1", "two"]).name("1.0")
        '1'
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._at = {identifier(name): at for at, name in enumerate(names)}
        self.names = tuple(names)

    def __contains__(self, value: object) -> bool:
        return identifier(value) in self._at

    def index(self, value: object) -> int | None:
        """Position of the name of a value; None if no name is its."""
        return self._at.get(identifier(value))

    def name(self, value: object) -> str | None:
        """The name of a value; None if no name is its."""
        at = self.index(value)
        return None if at is None else self.names[at]


def number_of_each(values: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """([n] int64, names): a number for each value, the same for equal identifiers, and a name for each number.

    Names are the first spellings found, sorted as text.
    """
    first: dict[str, str] = {}
    keys = [identifier(value) for value in values]
    for key, value in zip(keys, values, strict=True):
        first.setdefault(key, value)
    number = {key: at for at, key in enumerate(sorted(first, key=lambda key: first[key]))}
    return np.array([number[key] for key in keys], dtype=np.int64), tuple(sorted(first.values()))


def number_array(values: NDArray[np.generic]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """`number_of_each` for an array [n] of whole numbers, floats, booleans, text or bytes; sorted as numpy sorts it.

    Raises:
        DataError: see `identifier`.
    """
    distinct, first_row, of_row = np.unique(values, return_index=True, return_inverse=True)
    keys = list(map(identifier, distinct))
    number: dict[str, int] = {}
    for key in keys:
        number.setdefault(key, len(number))
    earliest: dict[str, int] = {}
    for at, key in enumerate(keys):
        if key not in earliest or first_row[at] < first_row[earliest[key]]:
            earliest[key] = at
    names = tuple(_spelling(distinct[earliest[key]]) for key in number)
    return np.array([number[key] for key in keys], dtype=np.int64)[of_row.reshape(-1)], names


def _spelling(value: np.generic) -> str:
    """As it is written in the array: text unchanged, a float that is a whole number as that."""
    return str(value) if isinstance(value, np.str_) else identifier(value)


def no_label_marks(labels: Iterable[str]) -> dict[str, str]:
    """Class ids that look like a mark for "no label", and why: -1, -100, 255 or 65535, far from two or more other ids.

    Example:
        >>> no_label_marks(["0", "1", "2", "255"])
        {'255': "stands beside ids 0 to 2 as a mark for 'no label' does"}
        >>> no_label_marks(["-1", "1"])
        {}
    """
    found = set(labels)
    if not all(map(is_whole, found)):
        return {}
    others = [int(label) for label in found if label not in _MARKS]
    marks = {}
    for mark in sorted(found & set(_MARKS)):
        if len(others) > 1 and (max(others) < int(mark) - 1 if int(mark) > 0 else min(others) >= 0):
            marks[mark] = f"stands beside ids {min(others)} to {max(others)} as a mark for 'no label' does"
    return marks


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that are different identifiers and look the same: probably one thing under two spellings.

    They differ only by case, leading zeros, white space, Unicode form (NFC and NFD, full-width digits), or the way a
    number is written (``1.5`` and ``1.50``, ``1E2`` and ``100``). Nothing is merged: `identifier` alone says what is
    equal.

    Args:
        names: any spellings of labels, categories, patients or sites; equal ones count once.

    Returns:
        groups of two or more first spellings, each in the order found.

    Example:
        >>> look_alikes(["P1", "12", "p1", "0012", "12.0", "x"])
        [('P1', 'p1'), ('12', '0012')]
    """
    groups: dict[str, dict[str, str]] = {}
    for name in names:
        groups.setdefault(_folded(name), {}).setdefault(identifier(name), name)
    return [tuple(group.values()) for group in groups.values() if len(group) > 1]


def _folded(name: str) -> str:
    bare = "".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())
    value = _number(bare)
    if value is not None and value.is_finite() and abs(value.adjusted()) < _LARGEST_EXPONENT:
        digits = f"{value:f}"
        return (digits.rstrip("0").rstrip(".") if "." in digits else digits) if value else "0"
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", bare)
