"""partition.npz and partition.json: how a federation is stored in the run folder, and the hashes that protect it."""

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedimb.data.rows import RowLists, Rows
from fedimb.errors import DataError
from fedimb.plain import JsonObject

FORMAT = 1
_AT_ONCE = 65_536  # lists hashed at a time
_MOST_COUNTS = 200_000
"""Counts kept in the JSON, where people read them; more go into the other file, as a number takes 38 bytes there."""


class SavedFederation(NamedTuple):
    """What both files hold: facts of the JSON, counts [K, C], the clients' rows, and those of test and server."""

    facts: JsonObject
    counts: np.ndarray
    train: RowLists
    validation: RowLists
    test: Rows
    public: Rows


def digest(
    train: Sequence[Rows],
    validation: Sequence[Rows],
    test: Rows,
    class_names: tuple[str, ...],
    fingerprint: str,
    public: Rows,
    labels: JsonObject | None = None,
) -> str:
    """Hex sha256 over index lists in client order, test rows, class names and source fingerprint, and over who
    annotates what (`fedimb.data.label_spaces`) where not every client annotates every class.

    Every list is preceded by its length, so moving a row between neighbouring clients changes it.
    """
    sha = hashlib.sha256(json.dumps([FORMAT, len(train), list(class_names), fingerprint]).encode())
    own = (public,) if len(public) else ()  # without server rows the hash is that of earlier versions
    for lists in (RowLists.of(train), RowLists.of(validation), RowLists.of([test, *own])):
        for start in range(0, len(lists), _AT_ONCE):
            sha.update(_with_lengths(lists, start, min(start + _AT_ONCE, len(lists))).tobytes())
    if labels is not None:
        sha.update(json.dumps(labels, sort_keys=True).encode())
    return sha.hexdigest()


def _with_lengths(lists: RowLists, start: int, stop: int) -> np.ndarray:
    """Some of the lists after one another, each preceded by its length, [n] little-endian int64."""
    offsets = lists.offsets[start : stop + 1] - lists.offsets[start]
    found = np.empty(int(offsets[-1]) + stop - start, "<i8")
    lengths = np.zeros(len(found), bool)
    lengths[offsets[:-1] + np.arange(stop - start)] = True
    found[lengths], found[~lengths] = lists.sizes[start:stop], lists.rows[lists.offsets[start] : lists.offsets[stop]]
    return found


def write_federation(
    folder: Path,
    facts: dict[str, object],
    counts: np.ndarray,
    train: RowLists,
    validation: RowLists,
    test: Rows,
    public: Rows,
) -> None:
    """Write both files, each through a temporary file and a rename; the JSON last, as it holds the other's hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"test": test, "public": public}
    if counts.size <= _MOST_COUNTS:
        facts = facts | {"counts": counts.tolist()}
    else:
        arrays["counts"] = counts
        facts = facts | {"counts_sha": _sha_of(counts), "class_totals": counts.sum(axis=0).tolist()}
    for name, lists in (("train", train), ("validation", validation)):
        arrays |= {f"{name}_rows": lists.rows, f"{name}_offsets": lists.offsets}
    facts = {"format": FORMAT, **_plain(facts)}
    facts["facts_sha"] = _facts_sha(facts)
    temporary = folder / f".partition.{os.getpid()}"
    with open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(temporary, folder / "partition.npz")
    temporary.write_text(json.dumps(facts, indent=1, allow_nan=False), encoding="utf-8")
    os.replace(temporary, folder / "partition.json")


def read_federation(folder: Path) -> SavedFederation:
    """What `write_federation` wrote.

    Raises:
        DataError: a file is missing, damaged or edited by hand.
    """
    try:
        facts = json.loads((folder / "partition.json").read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}, this fedimb reads {FORMAT}")
        if facts.pop("facts_sha") != _facts_sha(facts):
            raise ValueError("partition.json was changed after it was written")
        with np.load(folder / "partition.npz", allow_pickle=False) as arrays:
            train, validation = (
                RowLists(arrays[f"{name}_rows"], arrays[f"{name}_offsets"]) for name in ("train", "validation")
            )
            public = arrays["public"] if "public" in arrays else np.zeros(0, np.int64)  # older run folders have none
            counts = _counts(facts, arrays, len(train))
            return SavedFederation(facts, counts, train, validation, arrays["test"], public)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the partition in {folder} is missing or damaged ({reason}); start anew in an empty folder"
        ) from error


def _counts(facts: JsonObject, arrays: Mapping[str, np.ndarray], clients: int) -> np.ndarray:
    if "counts" in facts:
        return np.array(facts["counts"], np.int64).reshape(clients, len(facts["class_names"]))
    counts = arrays["counts"]
    if _sha_of(counts) != facts["counts_sha"]:
        raise ValueError("the counts in partition.npz were changed after they were written")
    return counts


def _sha_of(counts: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(counts, "<i8").tobytes()).hexdigest()


def _facts_sha(facts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
