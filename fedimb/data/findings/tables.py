"""Columns of a table: values that mean "missing", columns that number the rows, that give the label away, constants."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.findings.finding import Finding, shorten_list
from fedimb.data.inputs import TableColumns

_HIGH = (99, 999, 9999, 99999, 999999, 9999999, 99999999, 888, 8888, 99.9, 99.99, 999.9, 999.99, 9999.9)
_LOW = (-7, -8, -9, -77, -88, -99, -777, -888, -999, -9999, -99999, -999999, -99.9, -999.9, -9999.9)
_SAMPLE = 2000  # rows that refute most columns before all rows are read
_FEWEST = 50  # rows from which a column is judged to number them
_FEWEST_NAMED = 20  # different values, where its name says so
_EXACT = 1 << 24  # whole numbers beyond it are rounded in float32
_MOST_VALUES = 1000  # of a column that may be a label
_ID_NAME = re.compile(
    r"(^|[^a-z])(id|ids|pid|uid|uuid|guid|mrn|patient|patients|subject|participant)([^a-z]|$)"
    r"|(patient|subject|participant|person|case|record|row|sample|image|visit|study)[^a-z]?(id|no|nr|num|number|code)([^a-z]|$)"
)


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table: of numbers, or of categories in several columns of x.

    Attributes:
        name: as in the file; "column 3" if the columns have no names.
        first, width: where it is in x.
        kind: "number", "category" or "missing" (a 0/1 indicator).
    """

    name: str
    first: int
    width: int = 1
    kind: str = "number"

    def values(self, x: NDArray[Any], rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[Any]:
        """[m] a number per row, NaN as infinity; of a category its position, -1 without one."""
        block = x[rows, self.first : self.first + self.width]
        if self.kind == "category":
            return np.where(block.any(axis=1), block.argmax(axis=1), -1)
        return np.where(np.isnan(block[:, 0]), np.inf, block[:, 0])


def table_columns(columns: TableColumns | None, width: int) -> list[Column]:
    """The columns behind x [n, ``width``]."""
    if columns is None:
        return [Column(f"column {j}", j) for j in range(width)]
    found, at = [], 0
    for name in columns.names:
        size = len(columns.categories[name]) if name in columns.categories else 1
        found.append(Column(name, at, size, "category" if name in columns.categories else "number"))
        at += size
    marked = [name for name in columns.names if name in columns.indicators]
    return found + [Column(f"{name} missing", at + i, 1, "missing") for i, name in enumerate(marked)]


def column_findings(
    x: NDArray[np.float32],
    labels: list[NDArray[np.int64]],
    columns: TableColumns | None,
    groups: NDArray[np.int64] | None = None,
) -> Iterator[Finding]:
    """What is found in the feature columns of a table.

    Args:
        x: [n, F], NaN where missing.
        labels: [n] class ids; if rows have several labels, 0 and 1 for each class, -1 where
            unknown.
        columns: their names; None: without names.
        groups: [n] number of each row's group of identical rows; None: each is alone.
    """
    every = table_columns(columns, x.shape[1])
    low, high = np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0)
    for column in every:
        if column.kind == "number":
            yield from _sentinels(column, x, float(low[column.first]), float(high[column.first]), columns is not None)
    spread = np.linspace(0, len(x) - 1, min(len(x), _SAMPLE)).astype(np.int64)
    sample = x[spread]
    yield from _ids(every, x, sample, low, high, groups)
    yield from _labels(every, x, sample, labels, spread)
    yield from _constants(every, x, low, high)


def _sentinels(column: Column, x: NDArray[np.float32], low: float, high: float, named: bool) -> Iterator[Finding]:
    """Values that usually mean "missing" and stand apart: further from all others than these are from each other.

    The value is one of `_HIGH` above or `_LOW` below all others, and these have at least two different values. It
    stands apart if the gap is wider than the spread of the others (three times, if it occurs once); or if it is
    negative, occurs repeatedly, and nothing else is; or if it occurs three times or more, the gap is a fifth of their
    spread, and it is five times as frequent as the values next to it.
    """
    if np.float32(high) not in _HIGH_32 and np.float32(low) not in _LOW_32:
        return
    values, counts = np.unique(x[:, column.first], return_counts=True)
    values, counts = values[~np.isnan(values)], counts[~np.isnan(values)]
    known = np.isin(values, _BOTH)
    rest = values[~known]
    if len(rest) < 2:
        return
    spread, found = float(rest[-1] - rest[0]), []
    for value, times in zip(values[known].tolist(), counts[known].tolist(), strict=True):
        above = value > rest[-1]
        if not above and value >= rest[0]:
            continue
        gap = value - rest[-1] if above else rest[0] - value
        near = counts[~known][-_NEAR:] if above else counts[~known][:_NEAR]
        heap = times >= 3 and gap >= spread / 5 and times >= 5 * near.mean()
        only = not above and rest[0] >= 0 and times >= 2
        if gap > 3 * spread or (times >= 2 and gap > spread) or heap or only:
            found.append((value, times))
    if found:
        shown = " and ".join(f"{value:.7g} in {times:,} rows" for value, times in found)
        marks = ", ".join(f"{value:.7g}" for value, _ in found)
        remedy = (
            f"data.source.missing_values={{{column.name}: [{marks}]}}"
            if named
            else "write it as missing, or fill it in, in the file"
        )
        yield Finding(
            "sentinels",
            f"column '{column.name}'",
            f"{shown}, the other values are {rest[0]:.7g} to {rest[-1]:.7g}: if it means missing, {remedy}",
        )


def label_sentinels(name: str, values: NDArray[np.float32]) -> Iterator[Finding]:
    """Labels [n] that thresholds would make a class, and that usually mean "missing" (`_sentinels`)."""
    if len(values):
        column = Column(name, 0)
        yield from _sentinels(column, values[:, None], float(values.min()), float(values.max()), named=False)


_NEAR = 10
_HIGH_32, _LOW_32 = (frozenset(np.array(values, np.float32)) for values in (_HIGH, _LOW))
_BOTH = np.array([*_LOW, *_HIGH], np.float32)


def _ids(
    every: list[Column],
    x: NDArray[np.float32],
    sample: NDArray[np.float32],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    groups: NDArray[np.int64] | None,
) -> Iterator[Finding]:
    span = high.astype(np.float64) - low
    whole = ((np.floor(sample) == sample) | np.isnan(sample)).all(axis=0)
    for column in every:
        if column.kind == "category":
            reason = _category_is_id(column, x)
        elif column.kind == "number" and whole[column.first]:
            reason = _number_is_id(column, x, sample, float(high[column.first]))
            if not reason and span[column.first] >= _REPEATS[0] * len(x) and len(every) <= _MOST_COLUMNS:
                reason = _number_is_person(column, every, x, groups)
        else:
            continue
        if reason:
            yield Finding(
                "id_column",
                f"column '{column.name}'",
                f"{reason}: a number or name of a row or patient teaches a model nothing that holds for others; leave "
                "it out (data.source.drop), or say that it is the patient (data.source.patient)",
            )


def _number_is_id(column: Column, x: NDArray[np.float32], sample: NDArray[np.float32], high: float) -> str:
    """Why a column of whole numbers numbers the rows; "" if it does not.

    From 50 rows: 99 % of the values are distinct, and they rise or fall through the whole file, or lie so close
    together that values drawn at random would repeat (chance below 1 in 1,000), or all have the same number of digits,
    at least six. Or the column is named like an id and has at least 20 values, one for every 20 rows.
    """
    named = bool(_ID_NAME.search(column.name.lower())) or column.name.endswith(("ID", "Id"))
    part = sample[:, column.first]
    if high < _EXACT and not named and len(np.unique(part)) < 0.98 * len(part):
        return ""
    values = x[:, column.first]
    values = values[~np.isnan(values)].astype(np.float64)
    if (np.floor(values) != values).any():
        return ""
    distinct = np.unique(values)
    share = len(distinct) / max(1, len(values))
    if named and len(distinct) >= _FEWEST_NAMED and share >= 0.05:
        return f"{len(distinct):,} different numbers in {len(values):,} rows, in a column named like an id"
    if len(values) < _FEWEST:
        return ""
    steps = np.diff(values)
    one_way = bool((steps >= 0).all() or (steps <= 0).all())
    rounded = high >= _EXACT  # float32 makes neighbours equal
    if share < (0.05 if rounded and one_way else 0.9 if rounded else 0.99):
        return ""
    spread = float(distinct[-1] - distinct[0]) + 1
    close = len(values) ** 2 / (2 * spread) > 7
    digits = distinct[0] >= 1e5 and len(str(int(distinct[0]))) == len(str(int(distinct[-1])))
    if not (one_way or close or digits):
        return ""
    how = "that rise or fall through the file" if one_way else "that do not repeat"
    return f"{len(distinct):,} whole numbers {how} in {len(values):,} rows"


def _number_is_person(
    column: Column, every: list[Column], x: NDArray[np.float32], groups: NDArray[np.int64] | None
) -> str:
    """Why a column of whole numbers that repeat is the number of a person; "" if it is not.

    Each number is in a few rows (between 1.5 and 20 on average, never in a tenth of all), and another column, which
    has one value in at most 0.7 of all pairs of rows, has one value for each number (in 99.5 % of the pairs of rows
    with the same number, which is no chance: below 1 in 10^9), but not for numbers that are next to each other.
    Something measured gives no other column away, or gives neighbours away as well. Identical rows count once.
    """
    kept = np.arange(len(x)) if groups is None else np.flatnonzero(groups == np.arange(len(groups)))
    values = x[kept, column.first]
    kept, values = kept[~np.isnan(values)], values[~np.isnan(values)]
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    if len(ordered) < _FEWEST or (np.floor(ordered) != ordered).any():
        return ""
    same = ordered[1:] == ordered[:-1]
    sizes = np.diff(np.r_[-1, np.flatnonzero(~same), len(ordered) - 1])
    if not _REPEATS[0] <= len(sizes) / len(ordered) <= _REPEATS[1] or sizes.max() > len(ordered) / 10:
        return ""
    rows, personal = kept[order], []
    for other in every:
        if other is column:
            continue
        values = other.values(x, rows)
        equal = values[1:] == values[:-1]
        within, between = float(equal[same].mean()), float(equal[~same].mean())
        if within < _CONSTANT or between > (1 + _COMMON) / 2:
            continue
        shares = np.unique(values, return_counts=True)[1] / len(values)
        by_chance = float((shares**2).sum())
        sure = same.sum() * np.log(max(by_chance, 1e-12)) < np.log(1e-9)
        if sure and by_chance <= _COMMON and between <= (1 + by_chance) / 2:
            personal.append(other.name)
    if not personal:
        return ""
    each = shorten_list(personal)
    return f"{len(sizes):,} whole numbers in {len(ordered):,} rows, for each of which {each} is the same"


_REPEATS = (1 / 20, 1 / 1.5)  # numbers per row
_COMMON, _CONSTANT = 0.7, 0.995
_MOST_COLUMNS = 200  # of a table in which a person's number is looked for: pictures and spectra have none


def _category_is_id(column: Column, x: NDArray[np.float32]) -> str:
    """Why a column of categories names the rows; "" if it does not: 90 % of the rows have one of their own."""
    named = bool(_ID_NAME.search(column.name.lower())) or column.name.endswith(("ID", "Id"))
    least = _FEWEST_NAMED if named else _FEWEST
    if column.width < least or (not named and column.width < 0.9 * min(len(x), column.width + len(x) // 2)):
        return ""
    held = x[:, column.first : column.first + column.width].sum(axis=0)
    there, rows = int((held > 0).sum()), int(held.sum())
    if there >= least and there >= (0.05 if named else 0.9) * rows:
        return f"{there:,} different categories in {rows:,} rows"
    return ""


def _labels(
    every: list[Column],
    x: NDArray[np.float32],
    sample: NDArray[np.float32],
    labels: list[NDArray[np.int64]],
    spread: NDArray[np.int64],
) -> Iterator[Finding]:
    for column in every:
        values = column.values(sample)
        part = _by_value(values)
        if not any(_pure(y, *own) for y, own in (_known(values, y[spread], part) for y in labels)):
            continue
        values = column.values(x)
        whole = _by_value(values)
        for given in labels:
            y, (order, starts) = _known(values, given, whole)
            if _pure(y, order, starts) and _by_chance(y, order, starts) < np.log(1e-3 / len(every)):
                yield Finding(
                    "label_column",
                    f"column '{column.name}'",
                    f"each of its {len(starts):,} values has rows of one class only, so it is the label or made from "
                    "it; leave it out (data.source.drop)",
                )
                break


_Sorted = tuple[NDArray[np.int64], NDArray[np.int64]]


def _known(values: NDArray[Any], y: NDArray[np.int64], whole: _Sorted) -> tuple[NDArray[np.int64], _Sorted]:
    """The labels that are known and `_by_value` of their rows; ``whole``: that of all rows."""
    known = y >= 0
    return (y, whole) if known.all() else (y[known], _by_value(values[known]))


def _by_value(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows sorted by value, and where each value starts."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _pure(y: NDArray[np.int64], order: NDArray[np.int64], starts: NDArray[np.int64]) -> bool:
    """Whether each of at most 1,000 values has one class."""
    if len(starts) > _MOST_VALUES or not len(order):
        return False
    labels = y[order]
    return bool((np.minimum.reduceat(labels, starts) == np.maximum.reduceat(labels, starts)).all())


def _by_chance(y: NDArray[np.int64], order: NDArray[np.int64], starts: NDArray[np.int64]) -> float:
    """log of the chance that a column without relation to the label gives it away: 0 if values rarely repeat.

    Each further row of a value has the class of the first one with the probability of that class. A column is asked
    about below 1 in 1,000 for the whole table, if it has at most a quarter as many values as rows.
    """
    if len(starts) > len(order) / 4:
        return 0.0
    sizes = np.diff(np.r_[starts, len(order)])
    shares = np.bincount(y) / len(y)
    return float(((sizes - 1) * np.log(shares[y[order][starts]])).sum())


def _constants(
    every: list[Column], x: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]
) -> Iterator[Finding]:
    numbers = [column for column in every if column.kind == "number"]
    empty = [column.name for column in numbers if np.isnan(low[column.first])]
    same = [c.name for c in numbers if low[c.first] == high[c.first] and not np.isnan(x[:, c.first]).any()]
    for column in every:
        if column.kind == "category" and low[column.first : column.first + column.width].any():
            same.append(column.name)  # one category in every row
    for names, what in ((same, "have the same value in every row"), (empty, "have no value in any row")):
        if names:
            yield Finding(
                "constant_columns",
                f"column{'s' * (len(names) > 1)} {shorten_list(names)}",
                f"{len(names):,} of {len(every):,} columns {what}: nothing can be learned from them",
            )
