"""Rows that clients hold out of a training: folds cut inside each client, class by class, from the run's seed.

A fold's federation has the fold's rows as validation rows and trains on the others. What shows the same patient stays
in one fold. A class of which no training row would be left is not held out in that fold: no model could know it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.data.federation import Federation
from fedimb.data.folds import deal_rows
from fedimb.data.rows import Rows
from fedimb.seeds import Stream, numpy_rng

FOLDS = 5
KEPT = -1
"""The fold of a row that is never held out."""


@dataclass(frozen=True)
class Folds:
    """The folds of a federation.

    Attributes:
        rows: per client sorted int64 rows of the store.
        numbers: per client the fold of each of them; `KEPT`: in none.
        never: class ids of which no row is ever held out, since too few are left to train on.
    """

    rows: Sequence[Rows]
    numbers: Sequence[NDArray[np.int64]]
    never: tuple[int, ...]

    def held_out(self, fold: int) -> int:
        """Rows that the fold holds out."""
        return int(sum((one == fold).sum() for one in self.numbers))


def folds_of(
    federation: Federation, rows: Sequence[Rows], seed: int, folds: int = FOLDS, groups: NDArray[np.int64] | None = None
) -> Folds:
    """Cut the clients' rows.

    Args:
        rows: of each client, training rows whose classes are known.
        seed: the run's.
        groups: group of each row of the store.
    """
    y = np.asarray(federation.store.y)
    sorted_rows = [np.sort(np.asarray(own, np.int64)) for own in rows]
    numbers = [
        deal_rows(y[own], folds, numpy_rng(seed, Stream.FOLDS, 0, k), None if groups is None else groups[own])
        if len(own)
        else np.zeros(0, np.int64)
        for k, own in enumerate(sorted_rows)
    ]
    classes = federation.n_classes
    table = np.zeros((folds, classes), np.int64)
    for own, number in zip(sorted_rows, numbers, strict=True):
        np.add.at(table, (number, y[own]), 1)
    total = table.sum(axis=0)
    for fold in range(folds):
        lost = np.flatnonzero((total > 0) & (table[fold] == total))
        if not lost.size:
            continue
        for own, number in zip(sorted_rows, numbers, strict=True):
            back = (number == fold) & np.isin(y[own], lost)
            if groups is not None:
                back = (number == fold) & np.isin(groups[own], groups[own[back]])
            number[back] = KEPT
    left = np.zeros(classes, np.int64)
    for own, number in zip(sorted_rows, numbers, strict=True):
        np.add.at(left, y[own[number != KEPT]], 1)
    return Folds(sorted_rows, numbers, tuple(int(c) for c in np.flatnonzero((total > 0) & (left == 0))))


def fold_federation(federation: Federation, folds: Folds, fold: int) -> Federation:
    """The same clients, who train on the other folds and hold this one's rows as validation rows."""
    pairs = list(zip(folds.rows, folds.numbers, strict=True))
    counts = np.stack([federation.store.class_counts(own) for own in folds.rows]).astype(np.int64)
    return federation.among(
        train=[own[number != fold] for own, number in pairs],
        validation=[own[number == fold] for own, number in pairs],
        counts=counts if federation.labels is None else federation.labels.counts(counts),
        labels=federation.labels,
        phases=federation.phases,
    )
