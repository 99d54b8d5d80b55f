"""The legend of a setting's pictures: one for all of them, as text, so that pictures keep their space."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedimb.report.html.numbers import Row, ranked
from fedimb.report.html.pictures import COLOURS, CONTROL

_MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "*": "★", "x": "✕"}
_HOLLOW = {"o": "○", "s": "□", "^": "△", "D": "◇", "v": "▽", "*": "☆", "x": "✕"}
_ORDER = "os^Dv*"


@dataclass(frozen=True)
class Entry:
    """How a row is drawn: its colour, matplotlib's marker, and the same marker as a character."""

    row: Row
    colour: str
    marker: str

    @property
    def sign(self) -> str:
        """The marker as a character; hollow for a free row."""
        return (_HOLLOW if self.row.free else _MARKERS)[self.marker]

    @property
    def filling(self) -> str:
        """Colour inside the marker: white for a free row."""
        return "white" if self.row.free else self.colour

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of matplotlib's ``plot``."""
        look = {"color": self.colour, "marker": self.marker, "markerfacecolor": self.filling}
        return look | {"linestyle": "--" if self.row.control else "-"}


def legend(rows: Sequence[Row], most: int = len(COLOURS)) -> list[Entry]:
    """Rows drawn in colour: the control (dark and dashed) and the best by minority recall, in row order.

    The control is a cross, which cannot be hollow, unless it is a free row. A row looks the same in all pictures of its
    setting. Rows with missing runs come after complete ones.
    """
    order = [row for row in ranked(list(rows)) if not row.control]
    placed = {row.number for row in order}
    order += [row for row in rows if row.number not in placed and not row.control and row.finished]
    others = sorted(order[:most], key=lambda row: row.number)
    looks = [Entry(row, COLOURS[i], _ORDER[i]) for i, row in enumerate(others)]
    looks += [Entry(row, CONTROL, "o" if row.free else "x") for row in rows if row.control and row.finished]
    return sorted(looks, key=lambda entry: entry.row.number)


def foremost(entries: Sequence[Entry], most: int) -> list[Entry]:
    """The control and the best few of the entries."""
    others = [entry.row for entry in entries if not entry.row.control]
    order = ranked(others) + [row for row in others if row.bound or not row.complete]
    best = {row.number for row in order[:most]}
    return [entry for entry in entries if entry.row.control or entry.row.number in best]
