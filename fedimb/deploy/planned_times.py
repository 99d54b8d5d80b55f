"""Times of day and days as node.yaml writes them: ``limits.hours`` and ``absent``."""

from collections.abc import Iterable
from datetime import date, time


def parse_hours(hours: str) -> tuple[time, time]:
    """Parse ``20:00-06:00`` into two times of day; the end may be on the next day. ``00:00-24:00`` is the whole day.

    Raises:
        ValueError: they are not times of day, or start and end are the same.
    """
    first, _, last = hours.partition("-")
    try:
        start, end = time.fromisoformat(first), time() if last == "24:00" else time.fromisoformat(last)
    except ValueError:
        raise ValueError(f"'{hours}' is not a range of times: write it as 20:00-06:00") from None
    if start == end and last != "24:00":
        raise ValueError(f"'{hours}' has the same start and end: leave it out to run all day")
    return start, end


def parse_absences(absent: Iterable[str]) -> list[tuple[date, date]]:
    """Parse ``absent:`` into pairs of first and last day, both inclusive.

    Accepts ``2026-12-24``, ``2026-12-24..2027-01-06``, and dates written as ``24.12.2026``.

    Raises:
        ValueError: a line is not a date or range, or its end is before its beginning.
    """
    found = []
    for line in absent:
        parts = [part.strip() for part in line.split("..")] if ".." in line else [line.strip()]
        try:
            first, last = _day(parts[0]), _day(parts[-1])
        except ValueError:
            parts = []
        if len(parts) not in (1, 2) or last < first:
            raise ValueError(f"'{line}' is not a day or range: write 2026-12-24 or 2026-12-24..2027-01-06")
        found.append((first, last))
    return found


def _day(text: str) -> date:
    parts = text.split(".")
    return date(int(parts[2]), int(parts[1]), int(parts[0])) if len(parts) == 3 else date.fromisoformat(text)
