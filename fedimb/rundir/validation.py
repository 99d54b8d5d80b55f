"""Rows to choose thresholds on: the run's validation rows, or other labelled rows that it has not seen."""

from collections.abc import Iterator
from pathlib import Path

from fedimb.data.federation import Federation
from fedimb.data.new_rows import Expected, RowBatch, open_new_rows, store_batches
from fedimb.errors import DataError
from fedimb.plain import Settings
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.new_data import place_of
from fedimb.rundir.seen_rows import SeenRows
from fedimb.rundir.stored import read_federation

_SAME = 0.1  # share of a file's rows found in the run's own from which this is no chance
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
    rows = federation.known_validation()
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
    used = {"test": federation.test, "training": federation.train.rows}
    try:
        seen = {kind: SeenRows(federation, rows) for kind, rows in used.items()}
    except DataError:
        return  # the run's rows are elsewhere (a deployment), or gone
    for batch in batches:
        for one in seen.values():
            one.add(batch.x)
    for kind, one in seen.items():
        if one.total and one.count >= _SAME * one.total:
            raise DataError(
                f"{one.count:,} of the {one.total:,} rows of {place_of(source)} are in the run's {kind} set: {_REMEDY}"
            )
