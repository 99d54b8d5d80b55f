"""Sums over rows that a classifier is computed from, as integers: equal bits for any partition of the rows.

Every row's contribution is rounded to one unit and the units are counted, so the totals do not depend on which client
holds a row, on the order of clients or on a tree of partial sums, and a masked sum equals an open one. A float64 holds
every integer up to 2**53, so the sums are exact whatever the order in which NumPy adds them.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError, DataError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

COARSE, FINE = 10, 50
"""Units 2**-10 and 2**-50 of the squared lengths in `scale_of`."""
_FINE_BELOW = 2.0**11
_MOST_BITS = 51
_FEWEST_BITS = 20
_BLOCK = 4096


@dataclass(frozen=True)
class Units:
    """How features become integers.

    Attributes:
        exponent: features are divided by 2**exponent, so that their mean squared length is at most 1.
        bits: contributions are rounded to multiples of 2**-bits of the divided features, or of their products.
    """

    exponent: int
    bits: int

    @staticmethod
    def of(squared: float, rows: int, heaviest: float = 1.0) -> "Units":
        """The finest units with which no sum over all rows exceeds 2**52.

        Args:
            squared: sum of the squared lengths of all clients' rows, above 0.
            rows: of all clients, at least 1.
            heaviest: the largest weight of a row in a weighted sum.

        Raises:
            ConfigError: too many rows for units of 2**-20.
        """
        exponent = math.ceil(math.log2(squared / rows) / 2)
        bits = _MOST_BITS - math.ceil(math.log2(max(rows * heaviest, 1)))
        if bits < _FEWEST_BITS:
            raise ConfigError(
                f"exact sums over {rows} rows, the heaviest of weight {heaviest:g}, would need units coarser than "
                f"2**-{_FEWEST_BITS}; use fewer rows, or prior=data"
            )
        return Units(exponent, bits)


def scale_of(features: Floats) -> Integers:
    """Sum of the rows' squared lengths in units of 2**-10 and of 2**-50, [2] int64: the size of the features.

    The second is right only while the first is small; `squared_length` knows which to read.
    """
    squared = np.square(features).sum(axis=1)
    fine = np.where(squared < _FINE_BELOW, squared, 0.0)
    return np.array([_counted(squared * 2.0**COARSE), _counted(fine * 2.0**FINE)], np.int64)


def _counted(values: Floats) -> int:
    if len(values) and float(values.max()) >= 2.0**62:
        raise DataError("features are longer than 2**26: scale them, e.g. data.scaling, before class sums are taken")
    # one row is below 2**62; the sum is taken modulo 2**64, which only matters where it is not read
    return int(np.rint(values).astype(np.int64).sum(dtype=np.int64))


def squared_length(total: Integers, rows: int) -> float:
    """The sum of squared lengths from the sum of all clients' `scale_of`.

    Raises:
        DataError: all features are 0, or too small or too large for exact sums.
    """
    coarse, fine = float(total[0]) * 2.0**-COARSE, float(total[1]) * 2.0**-FINE
    found = fine if 0 <= coarse < _FINE_BELOW else coarse
    if not 0 < found < 2.0**52 or found < rows * 2.0**-40:
        raise DataError(
            f"the features' squared lengths add up to {found:g} over {rows} rows: all are 0, or too small or too large "
            "for exact sums; scale the inputs to about 1"
        )
    return found


@dataclass(frozen=True, eq=False)
class Statistics:
    """What all rows together say about each class; what a head does not need is None.

    Attributes:
        counts: rows [C] float64; whole unless noised.
        sums: sum of the rows [C, d].
        squares: sum of the squared lengths of all rows.
        second: sum of x x' over all rows [d, d].
        by_class: sum of x * x per class [C, d].
        scatter: sum of x x' per class [C, d, d]; zeros for a class whose matrix was not sent.
        weighted: as ``second``, a row of class c with ``weights[c]``.
        weights: [C], of ``weighted``.
    """

    counts: Floats
    sums: Floats
    squares: float | None = None
    second: Floats | None = None
    by_class: Floats | None = None
    scatter: Floats | None = None
    weighted: Floats | None = None
    weights: Floats | None = None

    def of_classes(self, classes: Integers) -> "Statistics":
        """The same of some classes, in this order. What counts all rows is kept: other classes must have none."""
        per_class = ("counts", "sums", "by_class", "scatter", "weights")
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v[classes] for k, v in found.items() if k in per_class and v is not None})

    def in_order(self) -> tuple["Statistics", Integers]:
        """Only the classes with rows, in an order that depends on their statistics alone, and their ids.

        Computed in this order, a head has equal bits however the classes are numbered.
        """
        held = np.flatnonzero(self.counts > 0)
        order = sorted(held.tolist(), key=lambda c: (float(self.counts[c]), self.sums[c].tolist()))
        return self.of_classes(np.array(order, np.int64)), np.array(order, np.int64)


FIELDS = ("squares", "second", "by_class", "scatter", "weighted")
"""What a head may need in addition to counts and sums."""


def checked(features: NDArray[np.generic], y: Integers, rows: Integers, classes: int) -> Floats:
    """Features [n, d] as float64.

    Args:
        y: labels [n].
        rows: ids [n] of the rows, to name a faulty one.
        classes: number of classes.

    Raises:
        DataError: labels that do not fit, or a value that is not finite.
    """
    values = np.asarray(features, np.float64)
    if values.ndim != 2 or y.shape != (len(values),):
        raise DataError(f"give features [n, d] and labels [n]; got {list(values.shape)} and {list(y.shape)}")
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        named = ", ".join(map(str, rows[bad][:5].tolist()))
        raise DataError(
            f"features of {int(bad.sum())} rows are NaN or infinite (rows {named}): the model has diverged, or these "
            "rows are corrupt"
        )
    if len(y) and not 0 <= y.min() <= y.max() < classes:
        raise DataError(f"labels must lie in 0 to {classes - 1}; got {int(y.min())} to {int(y.max())}; fix the labels")
    return values


def class_sums(
    features: Floats,
    y: Integers,
    kept: Collection[int],
    classes: int,
    units: Units,
    wanted: Collection[str] = (),
    weights: Floats | None = None,
    matrices_of: Collection[int] = (),
) -> dict[str, Integers]:
    """One client's sums in units, int64; a client without rows sends zeros.

    Args:
        features: [n, d] finite.
        y: labels [n].
        kept: classes whose rows count; no sum holds a row of another class.
        classes: number of classes C.
        units: see `Units`, the same at all clients.
        wanted: of `FIELDS`.
        weights: [C], of a class's rows in ``weighted``.
        matrices_of: the classes that send their matrix in ``scatter``.

    Returns:
        ``counts`` [C], ``sums`` [C, d] and what is wanted: ``squares`` [1], ``second`` and ``weighted`` [t],
        ``by_class`` [C, d], ``scatter`` [C, t], with t = d (d + 1) / 2, the upper triangle row by row.
    """
    inside = np.isin(y, list(kept))
    x, labels = features[inside] * 2.0**-units.exponent, y[inside]
    scale, width = 2.0**units.bits, features.shape[1]
    triangle = width * (width + 1) // 2
    found = {"counts": np.bincount(labels, minlength=classes).astype(np.int64)}
    found["sums"] = _by_class(np.rint(x * scale), labels, classes)
    if "squares" in wanted:
        found["squares"] = np.rint(np.square(x).sum(axis=1) * scale).sum(keepdims=True).astype(np.int64)
    if "second" in wanted:
        found["second"] = _triangle(x, scale)
    if "weighted" in wanted:
        assert weights is not None
        found["weighted"] = _triangle(x, scale, weights[labels])
    if "by_class" in wanted:
        found["by_class"] = _by_class(np.rint(np.square(x) * scale), labels, classes)
    if "scatter" in wanted:
        found["scatter"] = np.zeros((classes, triangle), np.int64)
        for c in matrices_of:
            found["scatter"][c] = _triangle(x[labels == c], scale)
    return found


def _by_class(values: Floats, labels: Integers, classes: int) -> Integers:
    """Sum of whole numbers [n, d] over each class's rows."""
    total = np.zeros((classes, values.shape[1]), np.float64)
    np.add.at(total, labels, values)
    return total.astype(np.int64)


def _triangle(x: Floats, scale: float, weights: Floats | None = None) -> Integers:
    """Upper triangle of the sum of x x' in units: every product of every row is rounded once."""
    width = x.shape[1]
    starts = np.concatenate([[0], np.cumsum(np.arange(width, 0, -1))])
    total = np.zeros(starts[-1], np.float64)
    for at in range(0, len(x), _BLOCK):
        columns = np.ascontiguousarray(x[at : at + _BLOCK].T)
        left = columns * scale if weights is None else columns * (weights[at : at + _BLOCK] * scale)
        for j in range(width):
            total[starts[j] : starts[j + 1]] += np.rint(left[j] * columns[j:]).sum(axis=1)
    return total.astype(np.int64)


def symmetric(triangle: Floats, width: int) -> Floats:
    """Upper triangles [..., t] -> symmetric matrices [..., d, d]."""
    above = np.triu_indices(width)
    found = np.zeros((*triangle.shape[:-1], width, width))
    found[..., above[0], above[1]] = triangle
    found[..., above[1], above[0]] = triangle
    return found


def opened(total: Mapping[str, Integers], units: Units, weights: Floats | None = None) -> Statistics:
    """The statistics behind the sum of all clients' `class_sums`."""
    one, two = 2.0 ** (units.exponent - units.bits), 2.0 ** (2 * units.exponent - units.bits)
    sums = total["sums"].astype(np.float64) * one
    width = sums.shape[1]

    def matrix(name: str) -> Floats | None:
        return symmetric(total[name].astype(np.float64) * two, width) if name in total else None

    return Statistics(
        counts=total["counts"].astype(np.float64),
        sums=sums,
        squares=float(total["squares"][0]) * two if "squares" in total else None,
        second=matrix("second"),
        by_class=total["by_class"].astype(np.float64) * two if "by_class" in total else None,
        scatter=matrix("scatter"),
        weighted=matrix("weighted"),
        weights=weights if "weighted" in total else None,
    )
