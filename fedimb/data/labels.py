"""Several labels per row: targets of 0, 1 and unknown, the class that means "no label", each row's primary class."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import DataError

NONE = "none"
UNKNOWN_CELL = 2
"""In targets [n, C] uint8 of a source: nobody has said whether the row has the class. It is neither a 0 nor a 1."""
_NONE_WORDS = ("none", "no finding", "normal")


def none_class(class_names: Sequence[str]) -> int | None:
    """The id of the class that means "no label": called none, No Finding or normal, in upper or lower case; None if
    there is none.

    If there are several, the first.
    """
    plain = [" ".join(str(name).replace("_", " ").split()).casefold() for name in class_names]
    return next((c for c, name in enumerate(plain) if name in _NONE_WORDS), None)


def check_row(labels: Sequence[str]) -> None:
    """Raise DataError unless the labels of one row go together: each once, and "no finding" only by itself."""
    for name in labels:
        if name == "":
            raise DataError("one of the labels is empty")
        if labels.count(name) > 1:
            raise DataError(f"label '{name}' is named twice; name each once")
    at = none_class(labels)
    if at is not None and len(labels) > 1:
        other = next(name for name in labels if name != labels[at])
        raise DataError(f"label '{labels[at]}' stands beside '{other}': a row has it alone, or only others")


def as_targets(labels: Sequence[Sequence[str]], class_names: Sequence[str]) -> NDArray[np.uint8]:
    """[n, C] uint8 of 0 and 1 from each row's class names, all of them in ``class_names``."""
    id_of = {name: c for c, name in enumerate(class_names)}
    targets = np.zeros((len(labels), len(class_names)), dtype=np.uint8)
    for row, names in enumerate(labels):
        targets[row, [id_of[name] for name in names]] = 1
    return targets


def known_cells(targets: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Targets [n, C] uint8 -> what is known, float32: 0, 1, or NaN for an unknown cell."""
    return np.where(targets == UNKNOWN_CELL, np.float32(np.nan), targets.astype(np.float32))


def primary_class(targets: NDArray[np.uint8], none: int | None = None) -> NDArray[np.int64]:
    """[n] int64: each row's rarest positive class, counted over all rows, ties to the lower id.

    It stands for the row wherever a row can count only once: test split, long tail, partition, samplers. The rarest is
    used so that a rare class is spread as configured although nearly all its rows have a common class too.

    A row without a known positive gets, of its unknown classes, ``none`` or else the most frequent: it may have it, and
    stands with the rows where one more matters least. No count or score takes it for a row of that class.

    Args:
        targets: [n, C] of 0, 1 and `UNKNOWN_CELL`, not only 0 in any row.
        none: the class that means "no label"; None: there is none.
    """
    positive, unknown = targets == 1, targets == UNKNOWN_CELL
    counts = positive.sum(axis=0, dtype=np.int64)
    rarest_first = np.lexsort((np.arange(len(counts)), counts))
    found = rarest_first[positive[:, rarest_first].argmax(axis=1)]
    if (without := ~positive.any(axis=1)).any():
        rank = counts.copy()
        if none is not None:
            rank[none] = counts.max() + 1
        commonest_first = np.lexsort((np.arange(len(counts)), -rank))
        found[without] = commonest_first[unknown[without][:, commonest_first].argmax(axis=1)]
    return found.astype(np.int64)


def complete(
    targets: NDArray[np.uint8], class_names: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.uint8], tuple[str, ...]]:
    """(y [n], targets [n, C'], class names C') in which every row has a label.

    A row without a label gets the class that means "no label" (`none_class`), or else a class "none" that is appended.
    Of a row with unknown cells that class is 0 beside a known positive, and unknown else, unless the source says it.
    ``class_names`` may have one name more than ``targets`` has columns, if that last class means "no label": it then
    exists whether or not a row needs it, so that sites can agree on one class list.

    Args:
        targets: [n, C] uint8 of 0, 1 and `UNKNOWN_CELL`.

    Raises:
        DataError: names that do not fit the columns.
    """
    names, none = tuple(class_names), none_class(class_names)
    width = targets.shape[1]
    partly = (targets == UNKNOWN_CELL).any(axis=1)
    if len(names) == width + 1 and none == width:
        targets = _appended(targets, partly)
    elif len(names) != width:
        raise DataError(
            f"class_names has {len(names)} names for {width} columns of labels; "
            "give one per column, optionally followed by 'none'"
        )
    others = targets if none is None else np.delete(targets, none, axis=1)
    bare = ~others.any(axis=1)
    if none is None and bare.any():
        names, none = (*names, NONE), width
        targets = _appended(targets, partly)
    if none is not None:
        targets = targets.copy()
        targets[bare, none] = 1
        targets[(others == 1).any(axis=1) & (targets[:, none] == UNKNOWN_CELL), none] = 0
    return primary_class(targets, none), np.ascontiguousarray(targets), names


def _appended(targets: NDArray[np.uint8], partly: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The targets with a column for "no label": not known of rows with unknown cells, 0 of others."""
    return np.column_stack([targets, np.where(partly, UNKNOWN_CELL, 0).astype(np.uint8)])


def class_counts(
    y: NDArray[np.int64], targets: NDArray[np.uint8] | None, n_classes: int, rows: NDArray[np.int64] | slice
) -> NDArray[np.int64]:
    """[C] int64: rows that are known to have each class, among ``rows``. With several labels per row they sum to more
    than rows."""
    if targets is None:
        return np.bincount(y[rows], minlength=n_classes).astype(np.int64)
    return np.asarray((np.asarray(targets[rows]) == 1).sum(axis=0), np.int64)
