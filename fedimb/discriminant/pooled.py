"""Nearest mean and discriminant analysis of rows that lie in one place, as ``strategy=oneround`` makes them of clients'
rows: for scripts that need a head of some rows and no run."""

from typing import Literal

import numpy as np

from fedimb.discriminant import heads
from fedimb.discriminant.estimates import means_of, within_of
from fedimb.discriminant.heads import Scores
from fedimb.discriminant.leave_one_out import GRID, Fitted, chosen, held_out
from fedimb.discriminant.statistics import Floats, Integers, Units, class_sums, opened, scale_of, squared_length

FALL_BACK = 0.5
"""Shrinkage where no row can be left out."""


def head_of(
    x: Floats,
    y: Integers,
    n_classes: int,
    head: Literal["ncm", "lda"] = "lda",
    min_count: int = 1,
    correct_means: bool = True,
) -> Scores:
    """The head of rows, with a uniform prior; lda's shrinkage is chosen by leave-one-out.

    Args:
        x: [n, d] float64, finite.
        y: [n] int64 labels from 0 to n_classes - 1.
        n_classes: number of classes C.
        head: ``ncm`` or ``lda``.
        min_count: rows that a class needs to be used; others are never chosen, and their rows are in no sum.
        correct_means: take off what makes the mean of few rows too long.

    Returns:
        scores over all C classes.

    Raises:
        ValueError: no class has ``min_count`` rows.

    Example:
        >>> x = np.array([[0.0], [0.2], [3.0], [3.4]])
        >>> head_of(x, np.array([0, 0, 1, 1]), n_classes=2)(np.array([[0.1], [3.1]])).argmax(1).tolist()
        [0, 1]
    """
    kept = np.flatnonzero(np.bincount(y, minlength=n_classes) >= max(min_count, 1))
    if not len(kept):
        raise ValueError(f"no class has {min_count} rows")
    units = Units.of(squared_length(scale_of(x), len(x)), len(x))
    fields = ("squares",) if head == "ncm" else ("second",)
    held, ids = opened(class_sums(x, y, kept.tolist(), n_classes, units, fields), units).in_order()
    if len(ids) == 1:
        return Scores(np.zeros_like(held.sums), np.zeros(1)).spread(ids, n_classes)
    if head == "ncm":
        return heads.ncm(held, correct_means).spread(ids, n_classes)
    within, even, shrinkage = within_of(held), np.zeros(len(ids)), FALL_BACK
    if within.freedom >= 2:
        place = np.full(n_classes, -1, np.int64)
        place[ids] = np.arange(len(ids))
        inside = place[y] >= 0
        fitted = Fitted(held.counts, means_of(held), within, even, correct_means)
        sums = held_out(fitted, x[inside], place[y[inside]], GRID, (1.0,))
        choice = chosen(sums["rows"], sums["hits"], sums["losses"], GRID, (1.0,))
        shrinkage = FALL_BACK if choice is None else choice.shrinkage
    return heads.lda(held, shrinkage, even, correct_means, within).spread(ids, n_classes)
