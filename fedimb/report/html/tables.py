"""The page's tables as rows of cells, ready for the template."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedimb.report.html.numbers import COSTS, HEADLINE, Row, best, defined, heading, shown
from fedimb.study.results import LOWER_IS_BETTER

_WIDE = 8
"""Number of columns that fit on a printed page."""


@dataclass(frozen=True)
class Cell:
    """A table cell: its figure, small text next to it, whether it is the best of its column, and text on hover."""

    text: str
    small: str = ""
    best: bool = False
    hover: str = ""
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A table: caption, headings (the first is for the rows), and per row its number, label and cells."""

    caption: str
    head: Sequence[str]
    rows: Sequence[tuple[Row, Sequence[Cell]]]


def score_tables(rows: list[Row]) -> list[Table]:
    """All defined columns, mean and half-width, in tables narrow enough for paper: scores first, then costs."""
    names = defined(rows)
    scores, costs = [n for n in names if n not in COSTS], [n for n in names if n in COSTS]
    parts = [*_cut(scores), *_cut(costs)]
    winners = {name: {row.number for row in best(rows, name)} for name in names}
    tables = []
    for part in parts:
        lines = [(row, [_seeds(row), *(_cell(row, name, winners[name]) for name in part)]) for row in rows]
        head = ["row", "runs", *(heading(name) + (" ↓" if _arrow(name) else "") for name in part)]
        tables.append(Table("what it cost" if part[0] in COSTS else "what it finds", head, lines))
    return tables


def across(settings: dict[str, list[Row]], labels: Sequence[str]) -> list[Table]:
    """Minority recall of every row in every setting, some settings at a time."""
    tables = []
    for part in _cut(list(settings)):
        by_label = {name: {row.label: row for row in settings[name]} for name in part}
        winners = {name: {row.number for row in best(settings[name], HEADLINE)} for name in part}
        lines = []
        for number, label in enumerate(labels, start=1):
            own = [by_label[name].get(label) for name in part]
            control = any(row.control for row in own if row is not None)
            cells = [
                Cell("", hover="not asked for") if row is None else _marked(row, _cell(row, HEADLINE, winners[name]))
                for name, row in zip(part, own, strict=True)
            ]
            lines.append((Row(number, label, (), control), cells))
        tables.append(Table("minority recall by setting", ["row", *part], lines))
    return tables


def _cut(names: list[str]) -> list[list[str]]:
    """Split into parts of about the same width, none wider than `_WIDE`."""
    if not names:
        return []
    parts = math.ceil(len(names) / _WIDE)
    size = math.ceil(len(names) / parts)
    return [names[at : at + size] for at in range(0, len(names), size)]


def _seeds(row: Row) -> Cell:
    text = str(len(row.results)) if row.complete else f"{len(row.finished)}/{len(row.results)}"
    return Cell(text, small=row.trouble)


def _cell(row: Row, name: str, winners: set[int]) -> Cell:
    mean = row.mean(name)
    if not row.finished:
        return Cell("no result", hover=row.trouble, style="none")
    each = ""
    if name == HEADLINE and len(row.finished) > 1:  # for every column it would be half of the page's bytes
        each = ", ".join(f"seed {r.seed}: {shown(name, r.score(name))}" for r in row.finished[:12])
    settled = math.isnan(mean.half) or (name in COSTS and mean.half == 0)  # e.g. bytes, which are equal in every run
    spread = "" if settled else f"± {shown(name, mean.half)}"
    return Cell(shown(name, mean.value), spread, row.number in winners, each)


def _marked(row: Row, cell: Cell) -> Cell:
    """A cell of a table over settings, where a row's name cannot say in which setting it is suspect."""
    return replace(cell, small=f"{cell.small} ?".strip(), hover=f"suspect: {row.suspect}") if row.suspect else cell


def _arrow(name: str) -> bool:
    return name in LOWER_IS_BETTER and name not in COSTS
