"""What the sites of a study hold at most: the plan fixes it, as what a site declares on joining is its own word."""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from fedimb.schema import Strict

MOST_ROWS = 1_000_000
"""Rows of a site, if the plan does not say."""
VALUES = (-1e6, 1e6)
"""Range of a table's values, if the plan does not say."""
_LARGEST = 100_000_000
_WINDOWS = 256  # windows of signals looked at together


class SiteLimits(Strict):
    """Rows and value ranges per site.

    Attributes:
        most_rows: training and validation rows of a site that ``rows`` does not name.
        rows: the same by site.
        values: [low, high] of each column of a table; a single pair is for all columns.
    """

    most_rows: int = Field(default=MOST_ROWS, ge=1, le=_LARGEST)
    rows: dict[str, int] = Field(default_factory=dict)
    values: list[list[float]] = Field(default_factory=lambda: [list(VALUES)], min_length=1)

    def rows_of(self, site: str) -> int:
        """The most rows of a site."""
        return min(self.rows.get(site, self.most_rows), _LARGEST)

    def ranges(self, columns: int) -> np.ndarray:
        """[columns, 2] float64: smallest and largest value of each column; of one pair for all, or if the number of
        pairs is another, the widest.
        """
        pairs = np.array(self.values, np.float64)
        if len(pairs) != columns:
            pairs = np.tile([pairs[:, 0].min(), pairs[:, 1].max()], (columns, 1))
        return pairs


def column_ranges(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value [F] float64 of each column of rows [n, F], or channel of signals [n, F, length].

    NaN for one without any.
    """
    if x.ndim > 2:
        return _channel_ranges(x)
    rows = np.asarray(x, np.float64)
    low, high = (np.full(rows.shape[1], np.nan) for _ in range(2))
    known = ~np.isnan(rows).all(axis=0)
    if known.any():
        low[known], high[known] = np.nanmin(rows[:, known], axis=0), np.nanmax(rows[:, known], axis=0)
    return low, high


def _channel_ranges(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`column_ranges` of signals, some windows at a time: those that overlap may not fit in memory together."""
    low, high = (np.full(x.shape[1], np.nan) for _ in range(2))
    for start in range(0, len(x), _WINDOWS):
        part = np.moveaxis(np.asarray(x[start : start + _WINDOWS], np.float64), 1, 0).reshape(x.shape[1], -1)
        low, high = np.fmin(low, np.fmin.reduce(part, axis=1)), np.fmax(high, np.fmax.reduce(part, axis=1))
    return low, high


def beyond(limits: SiteLimits, site: str, rows: int, columns: Sequence[str], low: np.ndarray, high: np.ndarray) -> str:
    """Why a site's own data are beyond a plan's limits, in words without a value of them; empty if they are within.

    Args:
        low, high: smallest and largest value of each column, NaN without any; empty for data that are not a table.
    """
    if rows > (most := limits.rows_of(site)):
        return f"it holds more rows than the {most} that the plan allows this site: make a plan with --rows {site}=N"
    ranges = limits.ranges(len(low))
    wrong = np.flatnonzero((low < ranges[:, 0]) | (high > ranges[:, 1]))
    if len(wrong):
        name = columns[wrong[0]] if wrong[0] < len(columns) else f"column {wrong[0] + 1}"
        pair = ranges[wrong[0]]
        return f"'{name}' has values outside the plan's {pair[0]:g} to {pair[1]:g}: make a plan with --value-range"
    return ""


def wrong_sums(sums: np.ndarray, rows: int, ranges: np.ndarray) -> str:
    """Why sums of a table's columns cannot be those of so many rows within these ranges; empty if they can.

    Args:
        sums: [3, F] float64: number of values, their sum, their sum of squares.
        rows: of the table; of signals, samples: rows times the length of a window.
        ranges: [F, 2].
    """
    count, total, squares = sums
    slack = 1e-9 * np.maximum(1.0, np.abs(ranges).max(axis=1)) * np.maximum(count, 1.0)
    largest = np.abs(ranges).max(axis=1) ** 2
    checks: Mapping[str, np.ndarray] = {
        f"counts {{0:g}} values, of at most {rows} rows": (count < 0) | (count > rows) | (count != np.floor(count)),
        "sums to {1:g}, more or less than its values within the plan's range can": (
            (total < count * ranges[:, 0] - slack) | (total > count * ranges[:, 1] + slack)
        ),
        "has squares that sum to {2:g}, more than its values within the plan's range can": (
            squares > count * largest * (1 + 1e-9) + slack
        ),
        "has squares that sum to {2:g}, less than its sum allows": (
            squares * np.maximum(count, 1.0) * (1 + 1e-6) + slack < total**2
        ),
    }
    for text, bad in checks.items():
        if bad.any():
            column = int(np.flatnonzero(bad)[0])
            return f"column {column + 1} {text.format(*sums[:, column])}"
    return ""


__all__ = ["MOST_ROWS", "VALUES", "SiteLimits", "beyond", "column_ranges", "wrong_sums"]
