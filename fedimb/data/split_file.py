"""A split as a CSV of row ids, for other tools to read and to write: one line per row of the source."""

import csv
import hashlib
import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedimb.atomic import write_atomic
from fedimb.data.groups import RowGroups
from fedimb.data.labels import UNKNOWN_CELL
from fedimb.data.paths import find_data
from fedimb.data.rows import Rows
from fedimb.errors import DataError, nearest

if TYPE_CHECKING:
    from fedimb.data.federation import Federation
    from fedimb.data.store import Store

SIDES = ("train", "validation", "test", "public", "unused")
"""``unused``: on no side, as the rows that the long tail takes away."""

_SPELLINGS = {name: name for name in SIDES} | {"training": "train", "val": "validation", "valid": "validation"}
_FIRST = "# fedimb split, format 1, {rows} rows, data sha256 {sha}"
_PATTERN = re.compile(r"# fedimb split, format (?P<format>\d+), (?P<rows>\d+) rows, data sha256 (?P<sha>[0-9a-f]{64})")
log = logging.getLogger("fedimb")


@dataclass(frozen=True, eq=False)
class SavedSplit:
    """What a file says of the rows of the store; each a sorted int64 array, disjoint.

    Attributes:
        test, public: as of a `Federation`.
        rest: the clients' rows, ``validation`` included.
        validation: the rows that clients hold out; empty: the file names none.
        unused: how many rows are on no side.
    """

    test: Rows
    rest: Rows
    validation: Rows
    public: Rows
    unused: int


def write_split(federation: "Federation", path: str | Path) -> int:
    """Write the sides and clients of a federation's rows; returns the number of lines below the header.

    Columns: ``id`` (the source's row id, such as a file name, or the row's number from 0), ``side`` and ``client``
    (of train and validation rows). The first line, a comment, holds the hash of the rows (`rows_sha`).
    """
    store = federation.store
    side = np.full(len(store), SIDES.index("unused"))
    client = np.full(len(store), -1)
    for name, lists in (("train", federation.train), ("validation", federation.validation)):
        side[lists.rows] = SIDES.index(name)
        client[lists.rows] = np.repeat(np.arange(len(lists)), lists.sizes)
    side[federation.test], side[federation.public] = SIDES.index("test"), SIDES.index("public")
    text = io.StringIO()
    text.write(_FIRST.format(rows=len(store), sha=rows_sha(store)) + "\n")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["id", "side", "client"])
    for row, (s, k) in zip(row_ids(store), zip(side.tolist(), client.tolist(), strict=True), strict=True):
        lines.writerow([row, SIDES[s], "" if k < 0 else k])
    write_atomic(Path(path), text.getvalue().encode())
    return len(store)


def read_split(path: str, store: "Store", groups: RowGroups | None = None) -> SavedSplit:
    """Read what `write_split` or another tool wrote. The columns ``id`` and ``side`` are needed, others are ignored.

    Raises:
        DataError: no such file; it is of other data; an id is unknown, missing or given twice; a side is unknown;
            there are no rows to test or to train on; or a patient (a group) is on two sides.
    """
    file = find_data(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the split {path} cannot be read ({error}); give a CSV in UTF-8") from None
    first, _, below = text.partition("\n")
    header = 2 if first.startswith("#") else 1
    _check_data(path, first if header == 2 else None, store)
    try:
        records = list(csv.reader(io.StringIO(below if header == 2 else text), strict=True))
    except csv.Error as error:
        raise DataError(f"the split {path} is not a CSV ({error}); write it as id,side") from None
    names = records[0] if records else []
    for name in ("id", "side"):
        if names.count(name) != 1:
            raise DataError(f"the split {path} needs one column '{name}' in its header, which is {','.join(names)!r}")
    side = _sides(path, records[1:], (names.index("id"), names.index("side"), len(names)), header, row_ids(store))
    _check_groups(path, side, groups)
    test, train, validation, public = (
        np.flatnonzero(side == SIDES.index(name)) for name in ("test", "train", "validation", "public")
    )
    for name, rows in (("test", test), ("train", train)):
        if not len(rows):
            raise DataError(f"the split {path} has no row with side {name}; give some rows that side")
    return SavedSplit(
        test,
        np.sort(np.concatenate([train, validation])),
        validation,
        public,
        int((side == SIDES.index("unused")).sum()),
    )


def row_ids(store: "Store") -> Sequence[str]:
    """The id of each row: the source's, or its number from 0."""
    return [str(row) for row in range(len(store))] if store.row_ids is None else store.row_ids.tolist()


def rows_sha(store: "Store") -> str:
    """sha256 (hex) of all rows with ids and classes; the same in any order if the source gives its rows ids."""
    names = np.array(store.class_names)
    lines = []
    for row, name in enumerate(row_ids(store)):
        sha = hashlib.sha256(name.encode())
        classes = [store.y[row]] if store.targets is None else np.flatnonzero(store.targets[row] == 1)
        sha.update("\n".join(["", *sorted(names[classes].tolist()), ""]).encode())
        if store.targets is not None and (unknown := np.flatnonzero(store.targets[row] == UNKNOWN_CELL)).size:
            sha.update("\n".join(["unknown", *sorted(names[unknown].tolist()), ""]).encode())
        sha.update(np.ascontiguousarray(store.x[row]).tobytes())
        lines.append(sha.digest())
    shape = f"{store.x.dtype} {list(store.x.shape[1:])} {store.scale!r}"
    return hashlib.sha256(b"".join([shape.encode(), *sorted(lines)])).hexdigest()


def _check_data(path: str, first: str | None, store: "Store") -> None:
    found = None if first is None else _PATTERN.fullmatch(first.strip().rstrip(","))
    if found is None:
        if store.row_ids is None:
            raise DataError(
                f"the split {path} does not say of which data it is, and this source's rows have numbers only: keep "
                "its first line (# fedimb split, ...), or give the source row ids (a table: data.source.id_column)"
            )
        log.warning("the split %s does not say of which data it is: its rows are matched by their ids alone", path)
        return
    if found["format"] != "1":
        raise DataError(f"the split {path} has format {found['format']}, this fedimb reads 1; write it again")
    if found["sha"] != rows_sha(store):
        raise DataError(
            f"the split {path} is of other data ({found['rows']} rows, sha256 {found['sha'][:12]}): the source's rows, "
            "classes or size have changed since; restore them, or write the split again"
        )


def _sides(
    path: str, records: list[list[str]], at: tuple[int, int, int], header: int, ids: Sequence[str]
) -> NDArray[np.int64]:
    """[n] int64, the index into `SIDES` of each row of the store."""
    number = {name: row for row, name in enumerate(ids)}
    side = np.full(len(ids), -1)
    for line, fields in enumerate(records, start=header + 1):
        if not fields:
            continue
        if len(fields) != at[2]:
            raise DataError(f"the split {path} row {line}: {len(fields)} fields below a header of {at[2]}")
        name, text = fields[at[0]], fields[at[1]].strip().lower()
        if name not in number:
            raise DataError(f"the split {path} row {line}: no row '{name}' in the source.{nearest(name, ids[:1000])}")
        if side[number[name]] >= 0:
            raise DataError(f"the split {path} row {line}: row '{name}' is given twice; give each row one side")
        if text not in _SPELLINGS:
            raise DataError(f"the split {path} row {line}: no side '{fields[at[1]]}'.{nearest(text, SIDES)}")
        side[number[name]] = SIDES.index(_SPELLINGS[text])
    if (missing := np.flatnonzero(side < 0)).size:
        raise DataError(
            f"the split {path} lacks {len(missing)} of the source's {len(ids)} rows, first '{ids[missing[0]]}': "
            "give each a side; unused: on none"
        )
    return side


def _check_groups(path: str, side: NDArray[np.int64], groups: RowGroups | None) -> None:
    if groups is None:
        return
    used = side != SIDES.index("unused")
    pairs = np.unique(np.stack([groups.of_row[used], side[used]], axis=1), axis=0)
    both = np.flatnonzero(pairs[1:, 0] == pairs[:-1, 0])
    if len(both):
        one, other = (SIDES[pairs[at, 1]] for at in (both[0], both[0] + 1))
        raise DataError(
            f"the split {path} has {len(np.unique(pairs[both, 0]))} {groups.noun} on two sides, the first in {one} and "
            f"{other}; give all rows of each one side"
        )
