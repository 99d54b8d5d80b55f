"""Classes of frames in order: the most probable sequence under which class may follow which.

Viterbi's algorithm (Viterbi, IEEE Transactions on Information Theory 1967) on a classifier's scores, each frame's taken
as independent of the others': the path c_1 .. c_T with the largest sum of log s_t(c_t) + log A(c_t-1, c_t), the first
class being free. As in the decoding of capsule endoscopies by which part of the gut follows which.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedimb.errors import ConfigError, DataError, nearest

_LEAST = 1e-30
"""Score below which a class counts as this: a score that was rounded to 0 forbids nothing, a transition of 0 does."""


def viterbi(scores: ArrayLike, transitions: ArrayLike) -> NDArray[np.int64]:
    """Scores [T, C] of frames in order, and transitions [C, C], from row to column -> classes [T] int64.

    Args:
        scores: at least 0; of each frame, up to a factor.
        transitions: at least 0, rows that sum to 1; 0 forbids. Every class has one that may follow it.

    Returns:
        the most probable sequence; of several the one whose last class, then the class before it and so on, comes
        first.

    Example:
        >>> stay = [[0.9, 0.1], [0.1, 0.9]]
        >>> viterbi([[0.8, 0.2], [0.4, 0.6], [0.8, 0.2]], stay).tolist()
        [0, 0, 0]
    """
    emitted = np.log(np.maximum(np.asarray(scores, dtype=np.float64), _LEAST))
    with np.errstate(divide="ignore"):
        moved = np.log(np.asarray(transitions, dtype=np.float64))
    frames = len(emitted)
    if not frames:
        return np.zeros(0, dtype=np.int64)
    best, came = emitted[0], np.zeros(emitted.shape, dtype=np.int64)
    for t in range(1, frames):
        through = best[:, None] + moved
        came[t] = through.argmax(axis=0)
        best = through[came[t], np.arange(emitted.shape[1])] + emitted[t]
    path = np.zeros(frames, dtype=np.int64)
    path[-1] = best.argmax()
    for t in range(frames - 1, 0, -1):
        path[t - 1] = came[t, path[t]]
    return path


def read_transitions(path: Path, class_names: Sequence[str]) -> NDArray[np.float64]:
    """A table of transitions [C, C] in the order of the classes, rows scaled to sum to 1.

    The CSV's first row and first column name the classes, in any order; a cell says how probable the class of its
    column is right after that of its row, in any unit; 0 or an empty cell: never.

    Raises:
        DataError: no such file, classes that are not the run's, a cell that is no number of at least 0, or a class that
            none may follow.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV of transitions ({error})") from error
    head, named = [text.strip() for text in (rows[0][1:] if rows else [])], [row[0].strip() for row in rows[1:]]
    for where, found in (("first row", head), ("first column", named)):
        if unknown := [name for name in found if name not in class_names]:
            raise DataError(
                f"{path}: '{unknown[0]}' in the {where} is not a class of the run.{nearest(unknown[0], class_names)}"
            )
        if sorted(found) != sorted(class_names):
            raise DataError(f"{path}: the {where} must name each of the run's {len(class_names)} classes once")
    made = np.zeros((len(class_names), len(class_names)))
    place = {name: at for at, name in enumerate(class_names)}
    for name, row in zip(named, rows[1:], strict=True):
        for other, text in zip(head, row[1:], strict=False):
            made[place[name], place[other]] = _probability(path, name, other, text)
    for name, total in zip(class_names, made.sum(axis=1), strict=True):
        if not total:
            raise DataError(
                f"{path}: no class may follow '{name}': give its row a number above 0 (itself, if it stays)"
            )
    scaled: NDArray[np.float64] = made / made.sum(axis=1, keepdims=True)
    return scaled


def _probability(path: Path, name: str, other: str, text: str) -> float:
    try:
        value = float(text.strip() or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value < np.inf:
        raise DataError(f"{path}: '{text}' from {name} to {other}: give a number of at least 0")
    return value


def sequences(ids: Sequence[str] | None, rows: int, pattern: str | None) -> Iterator[slice]:
    """Spans of consecutive rows that belong together, in order; all rows, if there is no pattern.

    Args:
        ids: a text per row.
        rows: their number.
        pattern: a regular expression searched in each id; rows belong together whose first group (without groups, whose
            match) is the same.

    Raises:
        ConfigError: not a regular expression, or no ids to search.
        DataError: an id in which it is not found, or frames that are not in order: a sequence that comes back after
            another one, or ids of a sequence whose numbers fall (frame_10 before frame_2, as names sort).
    """
    for span in _spans(ids, rows, pattern):
        if ids is not None:
            _check_order(ids[span])
        yield span


def _spans(ids: Sequence[str] | None, rows: int, pattern: str | None) -> Iterator[slice]:
    if pattern is None:
        if rows:
            yield slice(0, rows)
        return
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--sequence {pattern}: not a regular expression ({error})") from None
    if ids is None:
        raise ConfigError("--sequence is searched in the ids of rows, and these have none; give --id, or leave it out")
    done: set[str] = set()
    start, current = 0, ""
    for at, text in enumerate(ids):
        if (match := wanted.search(text)) is None:
            raise DataError(f"--sequence {pattern} is not found in the id '{text}'")
        name = match.group(1) if wanted.groups else match.group(0)
        if at and name != current:
            done.add(current)
            yield slice(start, at)
            start = at
        if name in done:
            raise DataError(f"sequence '{name}' comes back at the id '{text}': sort the rows by sequence and time")
        current = name
    if rows:
        yield slice(start, rows)


def _check_order(ids: Sequence[str]) -> None:
    """Refuse ids that differ first in a number, and whose number falls. Names that differ in text say no order."""
    for before, after in pairwise(ids):
        parts = [re.split(r"([0-9]+)", text) for text in (before, after)]
        for at, (one, other) in enumerate(zip(*parts, strict=False)):
            if at % 2:  # a number, compared without its zeros: of more digits it is larger
                first, second = ((len(held), held) for held in (one.lstrip("0"), other.lstrip("0")))
                if first > second:
                    raise DataError(
                        f"the frame '{after}' comes after '{before}': names sort as text; fill their numbers with "
                        "zeros (frame_002, frame_010), or give a CSV that lists the frames in order"
                    )
                if first < second:
                    break
            elif one != other:
                break
