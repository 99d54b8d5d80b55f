"""Rows to choose thresholds on: the run's validation rows, or other labelled rows that it has not seen."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedimb.data.federation import Federation
from fedimb.data.new_rows import Expected, RowBatch, open_new_rows, store_batches
from fedimb.errors import DataError
from fedimb.plain import Settings
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.new_data import place_of
from fedimb.rundir.stored import read_federation

_SAME = 0.5  # share of a file's rows found in the run's own from which the file is taken for a copy of them
_DISTINCT = 0.9  # share of the run's rows that must differ from each other for equal rows to mean anything
_REMEDY = "give labelled rows the run has not seen, or a run with data.validation above 0"


def held_out_rows(folder: Path | None, source: Settings | None, expected: Expected) -> tuple[Iterator[RowBatch], str]:
    """Batches of the run's validation rows, and what to call them; with ``source`` only its check and its name.

    Raises:
        DataError: there are none, or ``source`` holds the run's own test or training rows.
    """
    if folder is None:
        if source is None:
            raise DataError("a copied model has no validation rows: load the run folder, or give labelled data")
        return iter(()), place_of(source)
    federation = read_federation(RunFolder.open(folder))
    if source is not None:
        _refuse_seen(federation, source, expected)
        return iter(()), place_of(source)
    rows = np.sort(federation.validation.rows)
    if not len(rows):
        raise DataError(
            f"{folder} has no validation rows to choose thresholds on (data.validation=0), and its test set is not for "
            f"choosing: {_REMEDY}"
        )
    return store_batches(federation.store, rows, expected), f"the run's {len(rows):,} validation rows"


def _refuse_seen(federation: Federation, source: Settings, expected: Expected) -> None:
    batches, fingerprint, _ = open_new_rows(source, expected)
    if fingerprint() == federation.fingerprint:
        raise DataError(f"{place_of(source)} is the data of the run, test set included: {_REMEDY}")
    try:
        store = federation.store
    except DataError:
        return  # the run's rows are elsewhere (a deployment), or gone
    own = {
        kind: _hashes(np.asarray(store.x[rows]))
        for kind, rows in (("test", federation.test), ("training", federation.train.rows))
    }
    found, total = dict.fromkeys(own, 0), 0
    for batch in batches:
        total += len(batch.rows)
        new = _hashes(batch.x)
        for kind, seen in own.items():
            found[kind] += int(np.isin(new, seen).sum())
    for kind, count in found.items():
        if len(np.unique(own[kind])) < _DISTINCT * len(own[kind]):
            continue  # equal rows are usual in these data and prove nothing
        if total and count >= _SAME * total:
            raise DataError(
                f"{count:,} of the {total:,} rows of {place_of(source)} are in the run's {kind} set: {_REMEDY}"
            )


def _hashes(x: NDArray[np.generic]) -> NDArray[np.int64]:
    """One number per row, equal for equal rows."""
    return np.array([hash(row.tobytes()) for row in np.ascontiguousarray(x)], dtype=np.int64)
