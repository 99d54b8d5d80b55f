"""Dates and timestamps of rows, read exactly: a text with two readings is refused, not guessed."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError, DataError

NUMBER = "number"
"""The ``time_format`` of whole numbers, such as years, visit numbers or Unix times."""

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
Times = NDArray[Any]  # datetime64[us] or int64


def as_time(text: str, form: str | None = None) -> tuple[datetime | int, bool]:
    """(the time, whether it has an offset from UTC) of a text; a time with an offset is converted to UTC.

    Args:
        form: None: ISO 8601 with dashes, such as 2024-03-04 or 2024-03-04T10:30:00+01:00; a format of
            `datetime.strptime`, such as %d/%m/%Y; or ``number``.

    Raises:
        ValueError: the text is not such a time; its message is for users.
    """
    text = text.strip()
    if form == NUMBER:
        if not _WHOLE.fullmatch(text) or abs(int(text)) >= 2**63:
            raise ValueError(f"'{text}' is not a whole number")
        return int(text), False
    try:
        if form is None:
            if not _ISO.fullmatch(text):
                raise ValueError
            found = datetime.fromisoformat(text.replace(",", "."))
        else:
            found = datetime.strptime(text, form)
    except ValueError:
        if form is not None:
            raise ValueError(f"'{text}' is not a time of the format {form}") from None
        hint = " or 'number'" if _WHOLE.fullmatch(text) else ""
        raise ValueError(
            f"'{text}' is not an ISO date such as 2024-03-04; give time_format, such as '%d/%m/%Y'{hint}"
        ) from None
    return (found, False) if found.tzinfo is None else (found.astimezone(UTC).replace(tzinfo=None), True)


def check_time_format(kind: str, column: str | None, form: str | None) -> None:
    """Raise ConfigError unless ``form`` goes with a column and orders whole dates or numbers."""
    if form is None:
        return
    if column is None:
        raise ConfigError(f"source '{kind}': time_format goes with time_column; remove it or name the column")
    if form == NUMBER:
        return
    signs = set(re.findall(r"%(.)", form))
    whole = signs & set("xcGs") or ("Y" in signs and ("j" in signs or signs & set("mbB") or signs == {"Y"}))
    if not whole:
        raise ConfigError(
            f"source '{kind}': time_format={form!r} does not give a year of four digits (%Y) and a month; "
            "give a format such as '%d/%m/%Y', or 'number'"
        )


class TimeColumn:
    """Collects the times of a column's rows; all must be of one kind.

    Args:
        form: see `as_time`.
    """

    def __init__(self, form: str | None = None) -> None:
        self._form = form
        self._offset: bool | None = None

    def read(self, text: str) -> datetime | int:
        """One row's time.

        Raises:
            DataError: it is missing, unreadable, or has an offset from UTC where earlier rows have none.
        """
        if text.strip() == "":
            raise DataError("the time is missing")
        try:
            found, offset = as_time(text, self._form)
        except ValueError as error:
            raise DataError(f"time {error}") from None
        if self._offset is None:
            self._offset = offset
        elif offset != self._offset:
            has, lacks = ("this row", "earlier rows") if offset else ("earlier rows", "this row")
            raise DataError(f"time '{text}': {has} give an offset from UTC and {lacks} none; write all one way")
        return found


def as_times(found: Sequence[datetime | int]) -> Times:
    """[n] datetime64[us], or int64 for numbers."""
    if found and isinstance(found[0], datetime):
        return np.array(found, "datetime64[us]")
    return np.array(found, np.int64)


def shown_time(time: Any) -> str:
    """As a user writes it: a date without the hour if the hour is midnight."""
    return str(time).removesuffix(".000000").removesuffix("T00:00:00")
