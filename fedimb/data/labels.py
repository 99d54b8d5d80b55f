"""Several labels per row: 0/1 targets, the class that means "no label", and the primary class of each row."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import DataError

NONE = "none"
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


def primary_class(targets: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[n] int64: each row's rarest positive class, counted over all rows, ties to the lower id.

    It stands for the row wherever a row can count only once: test split, long tail, partition, samplers. The rarest is
    used so that a rare class is spread as configured although nearly all its rows have a common class too.

    Args:
        targets: [n, C] 0/1, at least one 1 in every row.
    """
    counts = targets.sum(axis=0, dtype=np.int64)
    rarest_first = np.lexsort((np.arange(len(counts)), counts))
    return rarest_first[targets[:, rarest_first].argmax(axis=1)].astype(np.int64)


def complete(
    targets: NDArray[np.uint8], class_names: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.uint8], tuple[str, ...]]:
    """(y [n], targets [n, C'], class names C') in which every row has a label.

    A row without a label gets the class that means "no label" (`none_class`), or else a class "none" that is appended.
    ``class_names`` may have one name more than ``targets`` has columns, if that last class means "no label": it then
    exists whether or not a row needs it, so that sites can agree on one class list.

    Args:
        targets: [n, C] uint8, 0/1.

    Raises:
        DataError: names that do not fit the columns.
    """
    names, none = tuple(class_names), none_class(class_names)
    width = targets.shape[1]
    if len(names) == width + 1 and none == width:
        targets = np.column_stack([targets, np.zeros(len(targets), np.uint8)])
    elif len(names) != width:
        raise DataError(
            f"class_names has {len(names)} names for {width} columns of labels; "
            "give one per column, optionally followed by 'none'"
        )
    bare = ~targets.any(axis=1)
    if none is None and bare.any():
        names, none = (*names, NONE), width
        targets = np.column_stack([targets, np.zeros(len(targets), np.uint8)])
    if none is not None:
        targets = targets.copy()
        targets[bare, none] = 1
    return primary_class(targets), np.ascontiguousarray(targets), names


def class_counts(
    y: NDArray[np.int64], targets: NDArray[np.uint8] | None, n_classes: int, rows: NDArray[np.int64] | slice
) -> NDArray[np.int64]:
    """[C] int64: rows that have each class, among ``rows``. With several labels per row they sum to more than rows."""
    if targets is None:
        return np.bincount(y[rows], minlength=n_classes).astype(np.int64)
    return np.asarray(targets[rows]).sum(axis=0, dtype=np.int64)
