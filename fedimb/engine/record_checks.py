"""What one record of a reply may hold: entries or arrays against what the contract declares, up to the first fault."""

import fnmatch
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

from fedimb.by_reference import ReferenceArray, npy_header, view
from fedimb.contracts.base import Record, Values
from fedimb.records import payload_bytes
from fedimb.text import clean_text

TIMES_NOISE = 40.0
"""Limits of a noised figure are wider by this many standard deviations of its noise."""
_SLACK = 1e-5  # of rounding, relative to the limit
_MOST_AXES, _MOST_NAMES = 8, 10_000
_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Refusal:
    """Why a reply is not used.

    Attributes:
        record: key of the record.
        field: name of the array, metric or setting in it; empty if the record as a whole is at fault.
        reason: what is wrong with it.
        not_finite: whether a value is NaN or infinite, which may also happen when training diverges.
        counts: whether it counts against the client (`fedimb.serverapp.left_out`).
    """

    record: str
    field: str
    reason: str
    not_finite: bool = False
    counts: bool = True

    def __str__(self) -> str:
        where = f"record '{self.record}'" + (f", '{self.field}'" if self.field else "")
        return f"{where}: {self.reason}"


@dataclass(frozen=True)
class Sizes:
    """What a run's records are measured by.

    Attributes:
        axes: lengths by letter: ``C`` classes, ``D`` domains, ``d`` features of the model, ``t`` values of a
            symmetric matrix over them, ``F`` values of a row; where there are subgroups ``A`` attributes, ``G`` groups
            at most, ``B`` bins.
        row: shape of one row.
        multilabel: whether rows have several labels.
        resampled: whether counts may be of rows after a resampler, at most as many of each class as there are rows.
        epochs, batch_size: of local training.
        weighting: ``view`` | ``real`` | ``original`` | ``uniform``.
    """

    axes: Mapping[str, int]
    row: tuple[int, ...]
    multilabel: bool = False
    resampled: bool = False
    epochs: int = 1
    batch_size: int = 1
    weighting: str = "view"


_Short = tuple[float, str, float, str, bool]
"""The usual declaration of a number: smallest and largest value, or the name of the limit, and whether it is whole."""


@dataclass
class Declared:
    """A record's declaration, with what is looked up for every reply kept."""

    record: Record
    required: list[str] = field(default_factory=list)
    known: dict[str, Values | None] = field(default_factory=dict)
    short: dict[str, _Short] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, one in (self.record.values or {}).items():
            if "*" not in name and not one.optional:
                self.required.append(name)
            if "*" not in name and one.text is None and not one.noise:
                self.short[name] = _short(one)

    def of(self, name: str) -> Values | None:
        """What an array, metric or setting of this name may hold; None if that is not declared."""
        if name not in self.known:
            values = self.record.values or {}
            found = values.get(name)
            if found is None:
                found = next(
                    (one for key, one in values.items() if "*" in key and fnmatch.fnmatchcase(name, key)), None
                )
            if len(self.known) > _MOST_NAMES:  # a stranger may send any name
                return found
            self.known[name] = found
        return self.known[name]


def _short(one: Values) -> _Short:
    # The largest numbers, not infinity: NaN and infinity are never within them.
    low, high = (-_LARGEST if one.low is None else one.low), (_LARGEST if one.high is None else one.high)
    return (
        *((0.0, low) if isinstance(low, str) else (low, "")),
        *((0.0, high) if isinstance(high, str) else (high, "")),
        one.whole,
    )


class _Fault(Exception):
    def __init__(self, field: str, reason: str, not_finite: bool = False) -> None:
        self.field, self.reason, self.not_finite = field, reason, not_finite


def check_record(
    declared: Record,
    record: ArrayRecord | MetricRecord | ConfigRecord,
    sent: object,
    sizes: Sizes,
    limits: Mapping[str, float],
) -> Refusal | None:
    """The first fault of a record, or None.

    Args:
        sent: the record of the same key in the message, or None.
    """
    return check_declared(Declared(declared), record, sent, sizes, limits)


def check_declared(
    own: Declared,
    record: ArrayRecord | MetricRecord | ConfigRecord,
    sent: object,
    sizes: Sizes,
    limits: Mapping[str, float],
) -> Refusal | None:
    """`check_record` for a declaration that is looked up once."""
    try:
        if isinstance(record, ArrayRecord):
            _check_arrays(own, record, sent if isinstance(sent, ArrayRecord) else None, sizes, limits)
        else:
            _check_entries(own, record, limits)
    except _Fault as fault:
        return Refusal(own.record.key, clean_text(fault.field, 60), fault.reason, fault.not_finite)
    except Exception as error:  # whatever a stranger put into it: not readable is a fault like any other
        return Refusal(own.record.key, "", f"cannot be read ({type(error).__name__})")
    return None


def _check_entries(own: Declared, record: MetricRecord | ConfigRecord, limits: Mapping[str, float]) -> None:
    declared, short = own.record, own.short
    most, numbers, present = declared.max_bytes, 0, 0
    for name, value in record.items():
        present += 1
        if type(value) is float:
            numbers += 1
            if (usual := short.get(name)) is not None:  # nearly always: one look, no call
                low, low_name, high, high_name, whole = usual
                least, largest = limits[low_name] if low_name else low, limits[high_name] if high_name else high
                if least <= value <= largest and -_LARGEST <= value <= _LARGEST and not (whole and value % 1):
                    continue
        _check_entry(declared, own.of(name), name, value, limits)
    if most is not None and (numbers < present or 8 * numbers > most):
        size = payload_bytes(cast(Any, {declared.key: record}))
        if size > most:
            raise _Fault("", f"has {size} bytes, declared at most {most}")
    for name in own.required:
        if name not in record:
            raise _Fault(name, "is missing")


def _check_entry(
    declared: Record, expected: Values | None, name: str, value: object, limits: Mapping[str, float]
) -> None:
    if expected is None:
        if declared.values is not None:
            raise _Fault(name, "is not declared")
        if isinstance(value, float) and not math.isfinite(value):
            raise _Fault(name, f"is {value}", True)
    elif expected.text is not None:
        if not isinstance(value, str) or re.fullmatch(expected.text, value) is None:
            raise _Fault(name, f"is not a text of the form {expected.text}")
    elif not isinstance(value, int | float) or isinstance(value, bool):
        raise _Fault(name, "is not a number")
    else:
        _check_number(name, value, expected, limits)


def _check_number(name: str, value: float, expected: Values, limits: Mapping[str, float]) -> None:
    if not math.isfinite(value):
        if expected.missing:
            return
        raise _Fault(name, f"is {value}, not finite", True)
    if expected.whole and value != int(value):
        raise _Fault(name, f"is {value}, not a whole number")
    low, high = _bounds(expected, limits)
    if not low <= value <= high:
        raise _Fault(name, f"is {value:g}, allowed are {_range(expected, limits)}")


def _check_arrays(
    own: Declared, record: ArrayRecord, sent: ArrayRecord | None, sizes: Sizes, limits: Mapping[str, float]
) -> None:
    declared = own.record
    lengths: dict[str, int] = {}  # of the letters that stand for the same length within the record
    if declared.max_bytes is not None and (size := sum(_claimed(array) for array in record.values())) > (
        declared.max_bytes
    ):
        raise _Fault("", f"has {size} bytes, declared at most {declared.max_bytes}")
    received = {} if sent is None else dict(sent.items())
    as_sent, present, plain = False, 0, not declared.dtypes
    for name, array in record.items():
        present += 1
        expected = own.of(name)
        if expected is not None and expected.sent:
            as_sent = True
            # An array from this process that is like the one sent, and of which nothing else is declared: the usual.
            if plain and expected.low is None and type(array) is ReferenceArray:
                theirs = received.get(name)
                if theirs is not None and array.shape == theirs.shape and array.dtype == theirs.dtype:
                    continue
        _check_array(declared, expected, name, array, sent, sizes, lengths, limits)
    if as_sent and sent is not None and not declared.optional and present != len(received):
        absent = [name for name in received if name not in record]
        raise _Fault("", f"holds other arrays than the client was sent ({', '.join(absent[:3])})")
    for name in own.required:
        if name not in record:
            raise _Fault(name, "is missing")


def _check_array(
    declared: Record,
    expected: Values | None,
    name: str,
    array: Array,
    sent: ArrayRecord | None,
    sizes: Sizes,
    lengths: dict[str, int],
    limits: Mapping[str, float],
) -> None:
    if expected is None and declared.values is not None:
        raise _Fault(name, "is not declared")
    dtype = _dtype(array, name)
    if declared.dtypes and array.dtype not in declared.dtypes and dtype.name not in declared.dtypes:
        raise _Fault(name, f"is {dtype.name}, declared as {' or '.join(declared.dtypes)}")
    if expected is not None and expected.sent:
        _check_as_sent(name, array, expected, sent)
        _check_bytes(name, array, dtype)
        if expected.low is None and expected.high is None:
            return
    elif expected is not None and expected.shape is not None:
        _check_shape(name, tuple(array.shape), expected.shape, sizes, lengths)
    _check_bytes(name, array, dtype)
    if dtype.kind in "iufb":
        _check_values(name, view(array), expected or _undeclared(declared), limits)


def _undeclared(declared: Record) -> Values:
    return Values(missing=declared.about == "class")


@lru_cache(maxsize=256)
def _known_dtype(text: str) -> np.dtype[Any]:
    return np.dtype(text)


def _dtype(array: Array, name: str) -> np.dtype[Any]:
    try:
        dtype = _known_dtype(array.dtype)
    except TypeError:
        raise _Fault(name, "has a type that does not exist") from None
    if dtype.kind not in "biufcUSMm":
        raise _Fault(name, f"is {dtype}, not numbers")
    return dtype


def _claimed(array: Array) -> int:
    return math.prod(array.shape) * _known_dtype(array.dtype).itemsize


def _check_bytes(name: str, array: Array, dtype: np.dtype[Any]) -> None:
    """The bytes are those of an array of the stated type and shape, so that reading them allocates no more."""
    if isinstance(array, ReferenceArray):
        return
    shape = tuple(array.shape)
    if len(shape) > _MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
        raise _Fault(name, "has a shape that does not exist")
    header = npy_header(dtype, shape)
    stated = len(header) + math.prod(shape) * dtype.itemsize
    if array.stype != "numpy.ndarray" or len(array.data) != stated or not array.data.startswith(header):
        raise _Fault(name, f"has {len(array.data)} bytes, which are not those of {dtype} {list(shape)}")


def _check_as_sent(name: str, array: Array, expected: Values, sent: ArrayRecord | None) -> None:
    received = None if sent is None else sent.get(name)
    if received is None:
        if sent is not None:
            raise _Fault(name, "is none of the arrays the client was sent")
        return
    own, theirs = tuple(array.shape), tuple(received.shape)
    if own != theirs or (expected.sent == "value" and array.dtype != received.dtype):
        raise _Fault(
            name,
            f"is {array.dtype} {list(own)}, not {received.dtype} {list(theirs)} as it was sent; use the same fedimb "
            "version and model configuration everywhere",
        )


@lru_cache(maxsize=256)
def _shapes(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(one.split(" x ")) for one in text.split(" or "))


def _check_shape(name: str, shape: tuple[int, ...], text: str, sizes: Sizes, lengths: dict[str, int]) -> None:
    for axes in _shapes(text):
        wanted: list[int | str] = []
        for axis in axes:
            if axis == "input":
                wanted += sizes.row
            else:
                wanted.append(int(axis) if axis.isdigit() else sizes.axes.get(axis, lengths.get(axis, axis)))
        if len(wanted) == len(shape) and all(
            isinstance(want, str) or want == own for want, own in zip(wanted, shape, strict=True)
        ):
            lengths |= {want: own for want, own in zip(wanted, shape, strict=True) if isinstance(want, str)}
            return
    raise _Fault(name, f"has shape {list(shape)}, declared as {text}")


def _check_values(name: str, values: np.ndarray, expected: Values, limits: Mapping[str, float]) -> None:
    if not values.size:
        return
    if values.dtype.kind == "f":
        # One sum is faster than a flag per value; it may overflow although no value does.
        if not math.isfinite(values.sum()):
            finite = np.isfinite(values)
            if not finite.all():
                if not expected.missing:
                    where = np.argwhere(~finite)[0].tolist()
                    raise _Fault(name, f"is not finite at {where}", True)
                values = values[finite]
                if not values.size:
                    return
        if expected.whole and not np.array_equal(values, np.floor(values)):
            raise _Fault(name, "holds values that are not whole numbers")
    if expected.low is not None or expected.high is not None:
        low, high = _bounds(expected, limits)
        least = values.min()
        # Whole numbers from 0 on that add up to at most the limit are not above it: the sum is checked below.
        summed = expected.total is not None and expected.total == expected.high and expected.low == 0
        most = least if summed and least >= 0 else values.max()
        if least < low or most > high:
            wrong = least if least < low else most
            raise _Fault(name, f"holds {wrong:g}, allowed are {_range(expected, limits)}")
    if expected.total is not None:
        most = _limit(expected.total, limits) + _noise(expected) * values.size
        sums = values.sum(axis=(1, 2), dtype=np.float64) if values.ndim == 3 else values.sum(dtype=np.float64)
        if np.max(sums) > most + _SLACK * abs(most) * (values.dtype.kind == "f"):
            raise _Fault(name, f"adds up to {np.max(sums):g}, more than the {most:g} {_words(expected.total)}")


def _words(limit: float | str) -> str:
    return "rows" if limit in ("rows", "weight", "labels") else f"{limit} rows" if isinstance(limit, str) else "allowed"


def _limit(value: float | str, limits: Mapping[str, float]) -> float:
    return limits[value] if isinstance(value, str) else value


def _noise(expected: Values) -> float:
    return TIMES_NOISE * float(expected.noise) if expected.noise else 0.0


def _bounds(expected: Values, limits: Mapping[str, float]) -> tuple[float, float]:
    low = -math.inf if expected.low is None else _limit(expected.low, limits)
    high = math.inf if expected.high is None else _limit(expected.high, limits)
    slack = 0.0 if expected.whole else _SLACK
    wide = _noise(expected)
    return (
        low - wide * (low != 0) - slack * abs(low) if math.isfinite(low) else low,
        high + wide + slack * abs(high) if math.isfinite(high) else high,
    )


def _range(expected: Values, limits: Mapping[str, float]) -> str:
    low, high = _bounds(replace(expected, whole=True), limits)  # as declared, without the slack of rounding
    if not math.isfinite(low) or not math.isfinite(high):
        return f"at least {low:g}" if math.isfinite(low) else f"at most {high:g}"
    return f"{low:g} to {high:g}"
