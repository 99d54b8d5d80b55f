"""From arrays of rows per site to one `SourceData`: what sources of federated benchmark files share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.identifiers import Names, identifier, in_order, is_whole, no_label_marks
from fedimb.data.problems import Problems
from fedimb.errors import DataError, nearest


@dataclass
class SiteRows:
    """Rows of one site from one file.

    Attributes:
        place: for messages: a file and what in it.
        site: its name.
        test: whether they are in the official test set.
        x: [m, ...] numbers.
        y: [m] labels: numbers or text.
    """

    place: str
    site: str
    test: bool
    x: NDArray[Any]
    y: NDArray[Any] | list[Any]


def assemble_sites(
    parts: Sequence[SiteRows],
    class_names: Sequence[str] | None,
    problems: Problems,
    unit: Literal["site", "patient"] = "site",
) -> SourceData:
    """Rows of all parts in their order; sites (or patients) in the order of their first part.

    x uint8 (scale 1/255) or float32 (scale 1). Classes are the labels found, whole numbers sorted by value; with
    ``class_names`` a label is a class's name or, if no class name is a number, its id.

    Raises:
        DataError: parts of different shapes or types, values that are not uint8 or float, no rows, bad rows.
    """
    held = [part for part in parts if len(part.y)]
    if not held:
        raise DataError(f"{parts[0].place if parts else 'the source'} has no rows, nor has any other; check the path")
    known = None if class_names is None else Names(class_names)
    xs: list[NDArray[Any]] = []
    texts: list[list[str]] = []
    for part in held:
        x = _like_first(part, held[0], xs[0].dtype if xs else None)
        labels, good = _usable(part, x, known, problems)
        xs.append(x if good.all() else x[good])
        texts.append([label for label, kept in zip(labels, good.tolist(), strict=True) if kept])
    goods = [len(x) for x in xs]
    skipped = problems.settle(sum(goods))
    names = list(class_names) if class_names is not None else _names_found(texts, held[0].place)
    of_class = {name: c for c, name in enumerate(names)}
    spelled: dict[str, str] = {}
    for part in parts:
        spelled.setdefault(identifier(part.site), part.site)
    sites, of_site = list(spelled.values()), {key: s for s, key in enumerate(spelled)}
    test = np.repeat([part.test for part in held], goods)
    owners = np.repeat(np.array([of_site[identifier(part.site)] for part in held], np.int64), goods)
    x = xs[0] if len(xs) == 1 else np.concatenate(xs)
    return SourceData(
        x=np.ascontiguousarray(x),
        y=np.array([of_class[label] for some in texts for label in some], np.int64),
        class_names=tuple(names),
        scale=1 / 255 if x.dtype == np.uint8 else 1.0,
        sites=owners if unit == "site" else None,
        site_names=tuple(sites) if unit == "site" else (),
        patients=owners if unit == "patient" else None,
        official_test=test if test.any() else None,
        skipped=skipped,
    )


def _like_first(part: SiteRows, first: SiteRows, dtype: np.dtype[Any] | None) -> NDArray[Any]:
    """A part's values, one label per row; raises DataError if shape or type are not the first part's (``dtype``)."""
    if len(part.x) != len(part.y):
        raise DataError(f"{part.place} has {len(part.x)} rows of x and {len(part.y)} of y; give one label per row")
    x = _values(part)
    if x.shape[1:] != first.x.shape[1:] or (dtype is not None and x.dtype != dtype):
        raise DataError(
            f"{part.place} x is {part.x.dtype} {list(x.shape[1:])} per row, {first.place} x is {first.x.dtype} "
            f"{list(first.x.shape[1:])}; give the same shape and type"
        )
    return x


def _usable(
    part: SiteRows, x: NDArray[Any], known: Names | None, problems: Problems
) -> tuple[list[str], NDArray[np.bool_]]:
    """A part's labels, and which rows [m] can be used; why the others cannot goes into ``problems``."""
    labels, bad = label_texts(part.y)
    good = np.ones(len(x), np.bool_)
    finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    for row in np.flatnonzero(~finite).tolist():
        problems.add(f"{part.place} x[{row}]", "NaN, infinite or too large for float32; impute or scale it")
        good[row] = False
    for row, reason in bad.items():
        problems.add(f"{part.place} y[{row}]", reason)
        good[row] = False
    if known is not None:
        for row in np.flatnonzero(good).tolist():
            try:
                labels[row] = _class(labels[row], known)
            except DataError as error:
                problems.add(f"{part.place} y[{row}]", str(error))
                good[row] = False
    return labels, good


def _names_found(texts: Sequence[Sequence[str]], place: str) -> list[str]:
    """The labels found, as class names; raises DataError for truth values beside numbers, or marks of no label."""
    names = in_order({label for some in texts for label in some})
    truth, number = {"True", "False"} & set(names), next(filter(is_whole, names), None)
    if truth and number is not None:
        raise DataError(
            f"{place}: labels are truth values in some rows ({min(truth)}) and others elsewhere ('{number}'); "
            "write them one way, or list all in class_names"
        )
    if marks := no_label_marks(names):
        mark, reason = min(marks.items())
        raise DataError(f"{place}: label {mark} {reason}; leave its rows out, or list it in class_names")
    return names


def label_texts(y: NDArray[Any] | list[Any]) -> tuple[list[str], dict[int, str]]:
    """Labels as identifiers (`fedimb.data.identifiers`), and the reason of each label that cannot be one."""
    values = y.tolist() if isinstance(y, np.ndarray) and y.dtype.kind != "f" else list(y)
    texts: list[str] = []
    bad: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            texts.append(_label(value))
        except DataError as error:
            texts.append("")
            bad[row] = str(error)
    return texts, bad


def _label(value: object) -> str:
    broken = isinstance(value, float | np.floating) and np.isfinite(value) and value != np.floor(value)
    if not isinstance(value, int | float | np.floating | str) or value == "" or broken:
        shown = float(value) if isinstance(value, np.floating) else value
        raise DataError(f"label {shown!r:.40} is not a whole number or text")
    return identifier(value)


def _values(part: SiteRows) -> NDArray[Any]:
    x = part.x
    if x.ndim < 2:
        raise DataError(f"{part.place} x is {list(x.shape)}; give rows of values, [n, ...]")
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind != "f":
        raise DataError(f"{part.place} x is {x.dtype}; save it as uint8 (0 to 255) or float32")
    with np.errstate(over="ignore"):
        return x.astype(np.float32, copy=False)


def _class(label: str, names: Names) -> str:
    if (known := names.name(label)) is not None:
        return known
    if is_whole(label) and not any(map(is_whole, names.names)):
        if 0 <= int(label) < len(names.names):
            return names.names[int(label)]
        raise DataError(f"label {label} is outside the class ids 0 to {len(names.names) - 1}")
    raise DataError(f"label '{label}' is not in class_names.{nearest(label, names.names)}")
