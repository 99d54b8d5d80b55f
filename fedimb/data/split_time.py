"""A test set of the last rows in time, as a model meets them that is used after it was trained."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.rows import Rows
from fedimb.data.times import Times, as_time, shown_time
from fedimb.errors import DataError
from fedimb.plain import Settings

log = logging.getLogger(__name__)


def split_by_time(
    rule: Settings, times: Times | None, groups: NDArray[np.int64] | None = None, noun: str = "patients"
) -> tuple[Rows, Rows]:
    """Split at one time: every test row is later than every training row, and no patient is on both sides.

    Rows of the same time are on the same side. Earlier rows of a patient with test rows are on neither side: to train
    on them would show the model its test patients, and to test on them would not be testing the future.

    Args:
        rule: ``since``: test rows are those from then on, or ``fraction``: the cut is the time that comes nearest to
            this fraction of the rows (of two as near, the later one).
        times: [n] datetime64 or int64, see `SourceData`.
        groups: [n] ids of what is never split up, called ``noun`` in messages; None: rows.

    Returns:
        (test, rest), sorted int64, disjoint.

    Raises:
        DataError: no times, a cut of another kind than they are, or a side without rows.
    """
    if times is None:
        raise DataError(
            "data.test=temporal needs a source with times: name the column with data.source.time_column, or use "
            "{name: stratified, fraction: 0.2}"
        )
    times = np.asarray(times)
    found, count = np.unique(times, return_counts=True)
    if len(found) < 2:
        raise DataError(f"data.test=temporal: all rows have the time {shown_time(found[0])}; use another split")
    cut = _since(rule["since"], times) if rule.get("since") is not None else _nearest(found, count, rule["fraction"])
    late = times >= cut
    span = f"{shown_time(found[0])} to {shown_time(found[-1])}"
    if late.all() or not late.any():
        side = "to train on: no row is earlier" if late.all() else "to test: no row is as late"
        raise DataError(f"data.test.since={shown_time(cut)!r} leaves no rows {side}; the times are {span}")
    early = ~late
    if groups is not None:
        early &= ~np.isin(groups, groups[late])
        if not early.any():
            raise DataError(
                f"data.test=temporal: all {noun} have rows from {shown_time(cut)} on, so none are left to train on; "
                f"take a later cut (the times are {span})"
            )
        if dropped := int((~late & ~early).sum()):
            several = len(np.unique(groups[~late & ~early]))
            log.warning(
                "data.test=temporal: %d earlier rows of %d %s with test rows are on neither side",
                dropped, several, noun,
            )  # fmt: skip
    return np.flatnonzero(late), np.flatnonzero(early)


def _nearest(found: Times, count: NDArray[np.int64], fraction: float) -> Any:
    """The time, not the first, from which on the share of rows is nearest to ``fraction``."""
    share = np.cumsum(count[::-1])[::-1][1:] / count.sum()
    distance = np.round(np.abs(share - fraction), 12)
    return found[1:][len(share) - 1 - int(np.argmin(distance[::-1]))]


def _since(since: object, times: Times) -> Any:
    if isinstance(since, int) != (times.dtype.kind == "i"):
        held = "numbers" if times.dtype.kind == "i" else "dates"
        raise DataError(f"data.test.since={str(since)!r}, but the times are {held}, such as {shown_time(times[0])}")
    if isinstance(since, int):
        return np.int64(since)
    return np.datetime64(as_time(str(since))[0], "us")
