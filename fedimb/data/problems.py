"""Bad rows of a source: collected with file, row and reason, then refused or skipped."""

from collections.abc import Callable
from typing import TypeVar

from fedimb.errors import ConfigError, DataError

ON_BAD = ("refuse", "skip")
IGNORED = "its label is ignore_label"
"""Why a row is left out that is not bad."""

_SHOWN = 5
T = TypeVar("T")


class Problems:
    """Bad rows of one source.

    ``on_bad="refuse"`` reads to the end to count them all and then raises; ``skip`` leaves them out and lists them.

    Args:
        on_bad: ``refuse`` or ``skip``.
        option: what a user sets to skip, for messages.
        most: bad rows after which ``refuse`` raises at once instead of listing more.

    Attributes:
        lines: one line per bad row, in the order found: ``place: reason``.
        left_out: one line per row that the settings leave out, which is not bad.
    """

    def __init__(self, on_bad: str = "refuse", option: str = "data.on_bad=skip", most: int | None = None) -> None:
        if on_bad not in ON_BAD:
            raise ConfigError(f"data.on_bad={on_bad!r}: give refuse or skip")
        self.on_bad, self._option, self._most = on_bad, option, most
        self.lines: list[str] = []
        self.left_out: list[str] = []
        self._places: dict[str, list[str]] = {}  # reason -> where, both in the order found

    def add(self, place: object, reason: str) -> None:
        """Note one bad row.

        Args:
            place: where to find it, such as ``labels.csv row 17`` (the header is row 1) or an image's path.
            reason: what is wrong and what would be right, in one line.
        """
        self.lines.append(f"{place}: {reason}")
        self._places.setdefault(reason, []).append(str(place))
        if self.on_bad == "refuse" and self._most is not None and len(self.lines) >= self._most:
            self.settle(0)

    def leave_out(self, place: object, reason: str) -> None:
        """Note one row that is left out as the settings say; it is never refused."""
        self.left_out.append(f"{place}: {reason}")

    def guard(self, place: object, read: Callable[[], T]) -> T | None:
        """``read()``, or None with its DataError noted under ``place``."""
        try:
            return read()
        except DataError as error:
            self.add(place, str(error))
            return None

    def settle(self, rows_left: int) -> tuple[str, ...]:
        """Call after the last row: returns the rows left out, bad ones first (empty if there are none).

        Raises:
            DataError: on_bad is refuse and a row is bad, or no row is left.
        """
        if not self.lines:
            if self.left_out and rows_left == 0:
                raise DataError(f"every row is left out: {self.left_out[0]}")
            return tuple(self.left_out)
        count = f"{len(self.lines)} bad row{'s' * (len(self.lines) > 1)}"
        shown = self._shown()
        if self.on_bad == "refuse":
            raise DataError(f"{count}: {shown} (fix them, or leave them out with {self._option})")
        if rows_left == 0:
            raise DataError(f"{count} and no good row: {shown}")
        return (*self.lines, *self.left_out)

    def _shown(self) -> str:
        """The first reasons, each once: with its first place, and how many more rows it holds for."""
        shown = [
            f"{places[0]}{f' and {len(places) - 1:,} more' if len(places) > 1 else ''}: {reason}"
            for reason, places in list(self._places.items())[:_SHOWN]
        ]
        return "; ".join(shown) + (" ..." if len(self._places) > _SHOWN else "")
