"""The audit without a separate holdout: train on each half of the records, with the other half as the holdout.

If a class is too small to hold out records, a second generator costs time instead of records. This judges the procedure
(generator, settings, half the data), not the batch that will leave; a procedure that does not copy from half the
records is not proven safe on all of them.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import DataError
from fedimb.privacy.audit.gate import audit
from fedimb.privacy.audit.types import Attack, Audit, Batch, Features, GateSettings, Ids, State, Verdict

Sampler = Callable[[Ids], NDArray[np.generic]]
"""Class ids [m] -> samples [m, *shape]."""

Train = Callable[[Batch], tuple[Sampler, Attack | None]]
"""Trains a generator on half of the records."""

_WORST: tuple[State, ...] = ("fail", "refused", "undecidable", "pass")


def split_in_halves(records: Batch, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Positions of two halves, with each class split evenly and all records of a patient on one side."""
    units = np.arange(len(records)) if records.units is None else records.units
    side = np.zeros(len(records), dtype=np.int64)
    seen: dict[int, int] = {}
    for label in np.unique(records.y):
        mine = rng.permutation(np.unique(units[records.y == label]))
        fixed = [seen[int(unit)] for unit in mine if int(unit) in seen]
        sizes = [fixed.count(0), fixed.count(1)]
        for unit in mine:
            if int(unit) not in seen:
                if sizes[0] == sizes[1]:
                    seen[int(unit)] = int(
                        rng.integers(2)
                    )  # otherwise every class of odd size would favour the same half
                else:
                    seen[int(unit)] = int(sizes[1] < sizes[0])
                sizes[seen[int(unit)]] += 1
    side[:] = [seen[int(unit)] for unit in units]
    return np.flatnonzero(side == 0), np.flatnonzero(side == 1)


def cross_audit(
    records: Batch,
    train: Train,
    samples: Ids,
    settings: GateSettings,
    rng: np.random.Generator,
    holders: NDArray[np.int64] | None = None,
    features: Features | None = None,
) -> tuple[Audit, tuple[Audit, Audit]]:
    """(both folds combined, each fold): a class passes if it passes in both.

    Args:
        records: all of them.
        train: called twice.
        samples: [m] class ids of the samples requested from each generator.
        settings: ``min_count`` refers to all records; each half needs half of it.

    Raises:
        DataError: fewer than two patients or records, or see `gate.audit`.
    """
    if records.count() < 2:
        raise DataError("a cross-audit needs two patients (records) to tell apart; give more records")
    first, second = (records.cut(rows) for rows in split_in_halves(records, rng))
    each = replace(settings, min_count=-(-settings.min_count // 2))
    folds = []
    for own, other in ((first, second), (second, first)):
        sampler, attack = train(own)
        made = Batch(np.asarray(sampler(samples)), samples)
        folds.append(audit(made, own, other, each, rng, attack, holders, features))
    joined = {label: _joined(folds[0].verdicts[label], folds[1].verdicts[label]) for label in folds[0].verdicts}
    return Audit(joined), (folds[0], folds[1])


def _joined(*verdicts: Verdict) -> Verdict:
    state = min((verdict.state for verdict in verdicts), key=_WORST.index)
    reasons = tuple(f"half {i}: {reason}" for i, verdict in enumerate(verdicts, 1) for reason in verdict.reasons)
    names = dict.fromkeys(name for verdict in verdicts for name in verdict.figures)
    return Verdict(state, reasons, {name: _mean(name, verdicts) for name in names})


def _mean(name: str, verdicts: tuple[Verdict, ...]) -> float:
    return float(np.mean([verdict.figures.get(name, np.nan) for verdict in verdicts]))
