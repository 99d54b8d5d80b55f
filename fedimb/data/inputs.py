"""What a run's rows looked like: column names and categories, type, shape and range of values. New rows must match."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.scaling import Scaling, column_sums
from fedimb.data.windows import SignalFacts
from fedimb.errors import DataError
from fedimb.plain import JsonObject, Settings

_VALUES = 1 << 22  # values read at a time for the range
_OUTSIDE = 0.01  # share of the values of new rows that may lie outside the training range before they are refused
_MARGIN = 0.25  # of the range's width, still counted as inside
_DOUBT = 3.0  # deviations between a column's mean and its training mean from which its unit is in doubt
_FAR = 6.0  # ... from which a table is refused if most of its columns are as far
_REFUSED = 20.0  # ... from which it is refused for one column
_NARROW = 1 / 8  # of the training deviation, below which a column's unit is in doubt: mmol/l where it was mg/dl
_EXTREME = 10.0  # deviations from which a single value is in doubt: -999 for a missing one
_OTHER_UNITS = 20.0  # times the span of real rows, from which rows from elsewhere are refused
_JUDGED = 256  # values of real rows from which their span says what is usual
_ENOUGH = 30  # rows from which a column's mean is judged


@dataclass(frozen=True)
class TableColumns:
    """A table's feature columns before encoding, in the order the model reads them.

    Attributes:
        names: of the columns.
        categories: column -> its categories in order, one 0/1 input each: identifiers (`fedimb.data.identifiers`).
        indicators: columns that get a 0/1 "missing" input, after all others.
        missing: column -> values that mean "missing", in addition to '', '?' and 'NA'.
        by_value: whether categories and labels are spelled by their float64 value, as 0.1 did; such a run's new rows
            are read by the same rule.
    """

    names: tuple[str, ...]
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    indicators: tuple[str, ...] = ()
    missing: dict[str, tuple[int | float | str, ...]] = field(default_factory=dict)
    by_value: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """One name per input of the model."""
        found: list[str] = []
        for name in self.names:
            found += [f"{name}={value}" for value in self.categories[name]] if name in self.categories else [name]
        return (*found, *(f"{name} missing" for name in self.names if name in self.indicators))

    @property
    def inputs_hash(self) -> str:
        """16 hex digits of the sha256 of `inputs`: categories are values of rows, so of these only it leaves a site."""
        return hashlib.sha256(json.dumps(self.inputs).encode()).hexdigest()[:16]

    @property
    def one_hot(self) -> tuple[tuple[int, int], ...]:
        """Of each column with categories, then of each "missing" mark: its first input, and the one after its last.

        Example:
            >>> TableColumns(names=("age", "sex"), categories={"sex": ("f", "m")}, indicators=("age",)).one_hot
            ((1, 3), (3, 4))
        """
        found, at = [], 0
        for name in self.names:
            width = len(self.categories.get(name, ("",)))
            if name in self.categories:
                found.append((at, at + width))
            at += width
        marks = [name for name in self.names if name in self.indicators]
        return (*found, *((at + i, at + i + 1) for i in range(len(marks))))

    def facts(self) -> JsonObject:
        """As plain values, for JSON."""
        return {
            "names": list(self.names),
            "categories": {name: list(values) for name, values in self.categories.items()},
            "indicators": list(self.indicators),
            "missing": {name: list(values) for name, values in self.missing.items()},
            "by_value": self.by_value,
        }

    @staticmethod
    def from_facts(facts: JsonObject) -> "TableColumns":
        """Inverse of `facts`."""
        return TableColumns(
            tuple(facts["names"]),
            {name: tuple(values) for name, values in facts["categories"].items()},
            tuple(facts["indicators"]),
            {name: tuple(values) for name, values in facts["missing"].items()},
            facts.get("by_value", True),  # 0.1 did not write it
        )


@dataclass(frozen=True)
class AgreedColumns:
    """The columns of the tables at a deployment's sites, as far as these tell them: without categories.

    Attributes:
        names: of the columns, in the order the model reads them.
        inputs_hash: of what they become: `TableColumns.inputs_hash`.
    """

    names: tuple[str, ...]
    inputs_hash: str

    def found(self, candidates: Sequence[TableColumns]) -> TableColumns | None:
        """The first of ``candidates`` that is these columns, with the same categories and marks; None if none is."""
        return next((one for one in candidates if one.inputs_hash == self.inputs_hash), None)


@dataclass(frozen=True)
class Inputs:
    """The rows a model was trained on, as their source holds them (before `fedimb.data.scaling`).

    Attributes:
        shape: of one row.
        dtype: uint8 or float32; "" if it is not known (a deployment, an older run).
        low, high: smallest and largest value of all clients' rows; None for a table, whose extremes are single
            patients' values, and for a deployment, whose rows are at the sites.
        columns: of a table with named columns; None if the columns have no names.
        colour: of pictures of three channels, whether any had colours (channels that differ); None if not known.
        label_names: label in the files -> class name; None where labels are the names or the ids.
        signal: of windows of signals: rate and channels; None for other rows.
        encoder: of embeddings: what made them; None if that is not known.
        agreed: of a deployment's tables with categories or marks of missing values, whose ``columns`` are not known:
            what its sites have told of them.
        row_settings: settings of their source that change values (`fedimb.data.row_settings`); empty if it has none, or
            they are not known. Of a deployment those that its sites have told.
    """

    shape: tuple[int, ...]
    dtype: str
    low: float | None = None
    high: float | None = None
    columns: TableColumns | None = None
    colour: bool | None = None
    label_names: dict[str, str] | None = None
    signal: SignalFacts | None = None
    encoder: str | None = None
    row_settings: Settings = field(default_factory=dict)
    agreed: AgreedColumns | None = None

    def facts(self) -> JsonObject:
        """As plain values, for JSON."""
        return {
            "shape": list(self.shape),
            "dtype": self.dtype,
            "low": self.low,
            "high": self.high,
            "columns": None if self.columns is None else self.columns.facts(),
            "colour": self.colour,
            "label_names": self.label_names,
            **({} if self.signal is None else {"signal": self.signal.facts()}),
            **({} if self.encoder is None else {"encoder": self.encoder}),
            **({"row_settings": self.row_settings} if self.row_settings else {}),
            **({} if self.agreed is None else {"agreed": {**asdict(self.agreed), "names": list(self.agreed.names)}}),
        }

    @staticmethod
    def from_facts(facts: JsonObject) -> "Inputs":
        """Inverse of `facts`."""
        columns = facts["columns"]
        return Inputs(
            tuple(facts["shape"]),
            facts["dtype"],
            facts["low"],
            facts["high"],
            None if columns is None else TableColumns.from_facts(columns),
            facts.get("colour"),
            facts.get("label_names"),
            SignalFacts.from_facts(told) if (told := facts.get("signal")) else None,
            facts.get("encoder"),
            facts.get("row_settings") or {},
            AgreedColumns(tuple(told["names"]), told["inputs_hash"]) if (told := facts.get("agreed")) else None,
        )


def has_colour(x: NDArray[np.generic], rows: NDArray[np.int64]) -> bool | None:
    """Whether any of these pictures of x [n, 3, h, w] has channels that differ; None for rows of another shape."""
    if x.ndim != 4 or x.shape[1] != 3:
        return None
    at_once = max(1, _VALUES // math.prod(x.shape[1:]))
    parts = (x[rows[start : start + at_once]] for start in range(0, len(rows), at_once))
    return any(_differ(part) for part in parts)


def _differ(x: NDArray[np.generic]) -> bool:
    return bool((x[:, 0] != x[:, 1]).any() or (x[:, 0] != x[:, 2]).any())


def value_range(x: NDArray[np.generic], rows: Sequence[NDArray[np.int64]]) -> tuple[float | None, float | None]:
    """(smallest, largest) value of the given rows of x [n, *shape], a list of rows per client; None without a value."""
    low, high = math.inf, -math.inf
    at_once = max(1, _VALUES // max(1, math.prod(x.shape[1:])))
    for held in rows:
        for start in range(0, len(held), at_once):
            part = x[held[start : start + at_once]]
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    return (low, high) if low <= high else (None, None)


def check_units(place: str, low: float, high: float, real: tuple[float, float], values: int) -> None:
    """Refuse rows from elsewhere whose values are of another order than those of the rows they are used beside.

    Args:
        place: names the rows from elsewhere in the message.
        low, high: of their values, as models see them.
        real: (smallest, largest) value of the real rows, as models see them.
        values: how many values the real rows have; fewer than 256 judge nothing.

    Raises:
        DataError: they span over 20 times as much (0 to 255 beside 0 to 1), or, if they differ at all, less than a
            hundredth of it.

    Example:
        >>> check_units("samples.npz", 0.0, 1.0, (0.0, 0.9), 784)
    """
    span, wanted = high - low, real[1] - real[0]
    alike = span == 0 or 0.01 * wanted <= span <= _OTHER_UNITS * wanted
    if values < _JUDGED or not wanted or alike:
        return
    raise DataError(
        f"{place} holds values from {low:g} to {high:g}, the rows they are used beside from {real[0]:g} to "
        f"{real[1]:g}: save them in the same units (of pictures 0 to 255 as uint8, which is divided by 255, or 0 to 1 "
        "as float32)"
    )


class InputCheck:
    """Compares new rows with the training rows, batch by batch: shape, type, range of values, a table's units.

    Args:
        inputs: of the training rows.
        place: names the new rows in messages.
        scaling: mean and deviation [F] of a table's columns, or of a signal's channels, in training (0 and 1 for one
            that is not scaled); None for other rows.
    """

    def __init__(self, inputs: Inputs, place: str, scaling: Scaling | None = None) -> None:
        if scaling is not None:  # of signals [channels, 1]: each sample of a channel is a row here
            scaling = Scaling(scaling.mean.ravel(), scaling.deviation.ravel())
        self.inputs, self.place, self._scaling = inputs, place, scaling
        columns = math.prod(inputs.shape) if scaling is None else len(scaling.mean)
        self._low, self._high = math.inf, -math.inf
        self._values = self._outside = self._rows = 0
        self._grey = bool(inputs.colour)  # none of the new pictures has colours yet
        self._sums = np.zeros((3, columns))
        self._extreme = np.zeros(columns, np.int64)
        self._furthest = np.zeros(columns) if scaling is None else scaling.mean.astype(np.float64)

    def add(self, x: NDArray[Any]) -> None:
        """Check one batch [m, *shape].

        Raises:
            DataError: another shape or type, infinite values, NaN in rows that are not a table's, or more than 1 % of
                the values so far lie outside the training range.
        """
        wanted = self.inputs
        if tuple(x.shape[1:]) != wanted.shape:
            raise DataError(
                f"a row of the data is {list(x.shape[1:])}, the run's are {list(wanted.shape)}: "
                "prepare the data as the run's were (columns, image size, grey or colour)"
            )
        if wanted.dtype and str(x.dtype) != wanted.dtype:
            raise DataError(
                f"{self.place} holds {x.dtype} values, the run was trained on {wanted.dtype}: save them as the "
                "training data were (0 to 255 is uint8, 0 to 1 is float32)"
            )
        if not np.isfinite(x).all() and (self._scaling is None or np.isinf(x).any()):
            raise DataError(
                f"{self.place} holds NaN or infinite values, which the model cannot read: impute or leave out"
            )
        if self._grey and len(x):
            self._grey = not _differ(x)
        if self._scaling is not None:
            values = x if x.ndim == 2 else np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
            self._sums += column_sums(values)
            self._add_extremes(values, self._scaling)
        if wanted.low is None or wanted.high is None or not len(x):
            return
        margin = _MARGIN * (wanted.high - wanted.low)
        self._low, self._high = min(self._low, float(x.min())), max(self._high, float(x.max()))
        self._values += x.size
        self._rows += len(x)
        if self._low < wanted.low - margin or self._high > wanted.high + margin:
            self._outside += int(((x < wanted.low - margin) | (x > wanted.high + margin)).sum())
        if self._outside > _OUTSIDE * self._values:
            self._refuse_range()

    def finish(self) -> list[str]:
        """After the last batch: warnings.

        Raises:
            DataError: the values span less than a hundredth of the training range (0 to 1 where it was 0 to 255), or a
                table's values are in other units.
        """
        wanted = self.inputs
        found = []
        if self._grey and self._rows:
            found.append(
                "all pictures are grey (three equal channels), the run's had colours: what it learned of them is not "
                "there"
            )
        if self._values and wanted.low is not None and wanted.high is not None:
            if 0 < self._high - self._low < 0.01 * (wanted.high - wanted.low):
                self._refuse_range()
            if self._low == self._high and wanted.low < wanted.high and self._rows > 1:
                found.append(f"all values are {self._low:g}: is this the file that was meant?")
            if self._outside:
                found.append(
                    f"{self._outside:,} of {self._values:,} values are far outside the training range "
                    f"{wanted.low:g} to {wanted.high:g} ({self._low:g} to {self._high:g})"
                )
        return found if self._scaling is None else found + self._units(self._scaling) + self._extremes(self._scaling)

    def _add_extremes(self, x: NDArray[Any], scaling: Scaling) -> None:
        distance = np.abs(x - scaling.mean) / scaling.deviation
        scaled = (scaling.deviation != 1) | (scaling.mean != 0)
        flag = (scaling.mean >= 0) & (scaling.mean <= 1) & ((x == 0) | (x == 1))  # of a rare flag 1 is nothing unusual
        far = scaled & (distance > _EXTREME) & ~flag
        if far.any():
            self._extreme += far.sum(0)
            new = x[np.where(far, distance, 0).argmax(0), np.arange(x.shape[1])]
            further = far.any(0) & (np.abs(new - scaling.mean) > np.abs(self._furthest - scaling.mean))
            self._furthest = np.where(further, new, self._furthest)

    def _extremes(self, scaling: Scaling) -> list[str]:
        return [
            f"column '{self._names[c]}': {self._extreme[c]:,} value{'' if self._extreme[c] == 1 else 's'} more than "
            f"{_EXTREME:g} deviations from the training mean, such as {self._furthest[c]:g} (mean {scaling.mean[c]:g}, "
            f"deviation {scaling.deviation[c]:g}): a mark of missing values, or another unit?"
            for c in np.flatnonzero(self._extreme).tolist()
        ]

    @property
    def _names(self) -> tuple[str, ...]:
        columns, signal = self.inputs.columns, self.inputs.signal
        if signal is not None and signal.channels:
            return signal.channels
        return columns.inputs if columns else tuple(map(str, range(len(self._extreme))))

    def _refuse_range(self) -> None:
        wanted = self.inputs
        raise DataError(
            f"{self.place} holds values from {self._low:g} to {self._high:g}, the run was trained on {wanted.low:g} "
            f"to {wanted.high:g}: scale them as the training data were"
        )

    def _units(self, scaling: Scaling) -> list[str]:
        count, total, squares = self._sums
        mean = total / np.maximum(count, 1)
        deviation = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
        scaled = (scaling.deviation != 1) | (scaling.mean != 0)
        judged = scaled & (count >= _ENOUGH)
        names = self._names

        def shown(c: int) -> str:
            return f"{mean[c]:g}, in training {scaling.mean[c]:g} with deviation {scaling.deviation[c]:g}"

        # Columns that patients of another kind do not bring to mean 0 and deviation 1.
        distant = np.abs(scaling.mean) > 3 * scaling.deviation
        telling = judged & (distant | (scaling.deviation > 10) | (scaling.deviation < 0.1))
        standard = (np.abs(mean) < 0.5) & (deviation > 0.5) & (deviation < 2)
        if telling.any() and standard[telling].all():
            c = int(np.flatnonzero(telling)[0])
            raise DataError(
                f"{self.place} looks scaled already (mean of '{names[c]}': {shown(c)}): give the values in the "
                "training data's units; the model scales them"
            )
        distance = np.where(count > 0, np.abs(mean - scaling.mean) / scaling.deviation, 0)
        beyond = np.abs(mean) > 10 * (np.abs(scaling.mean) + 3 * scaling.deviation)  # not a rare flag that all have
        far = judged & beyond & (distance > _REFUSED)
        if far.any():
            c = int(np.flatnonzero(far)[0])
            raise DataError(
                f"{self.place}: column '{names[c]}' has mean {shown(c)}: give the values in the training data's units"
            )
        off = scaled & (distance > _FAR)
        if 2 * (off & judged).sum() > judged.sum() > 1:
            c = int(np.flatnonzero(off & judged)[0])
            raise DataError(
                f"{self.place}: {(off & judged).sum()} of {judged.sum()} columns are more than {_FAR:g} deviations "
                f"from their training means (mean of '{names[c]}': {shown(c)}): give the training data's units"
            )
        flags = squares == total  # 0 and 1 only: these have no unit
        narrow = (deviation < _NARROW * scaling.deviation) & (deviation > 1e-6 * np.abs(mean))
        off |= judged & ~flags & ((distance > _DOUBT) | narrow)
        return [
            f"column '{names[c]}' has mean {shown(c)} (here {deviation[c]:g}): check its unit"
            for c in np.flatnonzero(off).tolist()
        ]
