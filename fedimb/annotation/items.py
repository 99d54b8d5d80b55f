"""Maps the items of a worklist to rows: kept at the site, in a separate file that readers never get."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedimb.annotation.private import write_private
from fedimb.annotation.tables import csv_bytes, read_table, safe_cell, without_apostrophe
from fedimb.errors import DataError

MAP = "site-only-map.csv"
_COLUMNS = ("id", "cycle", "row", "patient", "accession")
_ID = re.compile(r"w-\d{5,}")


@dataclass(frozen=True)
class Item:
    """One row on a worklist.

    Attributes:
        id: ``w-00042``: reveals nothing about the row, and no spreadsheet reads it as a number or a date.
        cycle: the cycle in which it was requested.
        row: row of the store.
        patient: the store's patient id, or None.
        accession: the site's own accession number of the examination, or empty.
    """

    id: str
    cycle: int
    row: int
    patient: int | None = None
    accession: str = ""


def is_id(text: str) -> bool:
    """Whether a text looks like an item's id."""
    return _ID.fullmatch(text) is not None


def new_items(
    rows: NDArray[np.int64],
    cycle: int,
    taken: int,
    rng: np.random.Generator,
    patients: NDArray[np.int64] | None = None,
    accessions: Mapping[int, str] | None = None,
) -> list[Item]:
    """Create items for rows, shuffled: a source is often sorted by class, and a list in that order would reveal it.

    Args:
        rows: [n] int64.
        taken: number of ids in use; numbering continues from there.
        patients: patient ids of all rows of the store, or None.
        accessions: accession numbers by row.
    """
    shuffled = [int(row) for row in rng.permutation(rows)]
    return [
        Item(
            f"w-{taken + i:05d}",
            cycle,
            row,
            None if patients is None else int(patients[row]),
            (accessions or {}).get(row, ""),
        )
        for i, row in enumerate(shuffled, start=1)
    ]


def first_per_patient(
    rows: NDArray[np.int64], patients: NDArray[np.int64] | None, most: int | None
) -> NDArray[np.int64]:
    """Keep at most ``most`` rows per patient, the first ones; the order stays."""
    if patients is None or most is None:
        return rows
    seen: dict[int, int] = {}
    kept = []
    for row in rows:
        patient = int(patients[row])
        seen[patient] = seen.get(patient, 0) + 1
        if seen[patient] <= most:
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def write_map(folder: Path, items: Sequence[Item]) -> None:
    """Write the map of all cycles, mode 0600."""
    rows = [
        (i.id, str(i.cycle), str(i.row), "" if i.patient is None else str(i.patient), safe_cell(i.accession))
        for i in items
    ]
    write_private(folder / MAP, csv_bytes([_COLUMNS, *rows]))


def read_map(folder: Path) -> list[Item]:
    """Read the map that `write_map` wrote; empty if there is none yet.

    Raises:
        DataError: the map is damaged; names the line.
    """
    path = folder / MAP
    if not path.exists():
        return []
    lines, problems = read_table(path, [(name,) for name in _COLUMNS])
    items = []
    for line in lines:
        cells = line.cells
        try:
            patient = int(cells["patient"]) if cells["patient"] else None
            items.append(
                Item(
                    cells["id"], int(cells["cycle"]), int(cells["row"]), patient, without_apostrophe(cells["accession"])
                )
            )
        except ValueError:
            problems.append(f"{MAP} line {line.number}: cycle, row and patient are not numbers")
    if len({item.id for item in items}) != len(items):
        problems.append(f"{MAP} line 1: an id occurs twice")
    if problems:
        raise DataError(
            f"{path} is damaged ({problems[0]}); restore it from a copy: without it labels cannot be matched to rows"
        )
    return items
