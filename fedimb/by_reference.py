"""Arrays that are passed by reference within a process, and become bytes only when Flower's network code needs them.

Flower's `Array` holds the bytes of an .npy file: every hop writes and parses one, which for a small model costs more
than training it. `ReferenceArray` is an Array whose ``data`` is created when it is first read.
"""

import io
import math
from functools import lru_cache
from typing import cast

import numpy as np
from flwr.app import Array

_NUMBERS = "biufc"


class ReferenceArray(Array):
    """A Flower Array around a read-only numpy array.

    Args:
        value: C-contiguous array of numbers. It is not copied: its memory must not be written to afterwards (the view
            kept here is read-only).
    """

    # Array is a dataclass with the four fields dtype, shape, stype and data; `data` is a property here.
    def __init__(self, value: np.ndarray) -> None:
        held = value.view()
        held.flags.writeable = False
        self.__dict__.update(dtype=_text(value.dtype), shape=value.shape, stype="numpy.ndarray", held=held)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The .npy bytes, identical to those of ``Array(value)``; created once and kept."""
        if "bytes" not in self.__dict__:
            self.__dict__["bytes"] = npy_header(self.held.dtype, self.held.shape) + self.held.tobytes()
        return cast(bytes, self.__dict__["bytes"])

    @property
    def held(self) -> np.ndarray:
        """The values, read-only, not copied."""
        return cast(np.ndarray, self.__dict__["held"])

    def numpy(self) -> np.ndarray:
        """A new, writable copy, as in Flower's Array."""
        return self.held.copy()

    def deflate(self) -> bytes:
        """The bytes that Flower's network code sends: those of a plain Array (the class name is part of them)."""
        return Array(self.dtype, self.shape, self.stype, self.data).deflate()

    def __eq__(self, other: object) -> bool:
        """Equal to any Array with the same bytes."""
        if not isinstance(other, Array):
            return NotImplemented
        mine, theirs = (self.dtype, self.shape, self.stype), (other.dtype, tuple(other.shape), other.stype)
        return mine == theirs and (other is self or self.data == other.data)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle only the values; with pickle protocol 5 and out-of-band buffers, without a copy."""
        return ReferenceArray, (self.held,)


def reference(value: np.ndarray, copy: bool) -> Array:
    """Wrap a numpy array as an Array: by reference if it holds numbers, else (text, dates) as bytes.

    Args:
        copy: whether the caller may write to ``value`` later.
    """
    if value.dtype.kind not in _NUMBERS or not value.dtype.isnative:
        return Array(value)
    if copy or not value.flags.c_contiguous:
        value = np.array(value, order="C")
    return ReferenceArray(value)


@lru_cache(maxsize=256)
def _text(dtype: np.dtype[np.generic]) -> str:
    return str(dtype)


@lru_cache(maxsize=4096)
def npy_header(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """The first bytes of an .npy file, up to the values."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def nbytes(array: Array) -> int:
    """Bytes of an Array's values, without a header."""
    if isinstance(array, ReferenceArray):
        return array.held.nbytes
    return math.prod(array.shape) * np.dtype(array.dtype).itemsize


def view(array: Array) -> np.ndarray:
    """An Array's values without a copy, read-only; ``array.numpy()`` copies each time, and usually parses a header."""
    if isinstance(array, ReferenceArray):
        return array.held
    try:
        dtype = np.dtype(array.dtype)
    except TypeError:  # a dtype without a short name
        return array.numpy()
    header = npy_header(dtype, tuple(array.shape)) if dtype.kind in _NUMBERS else None
    if header is not None and array.stype == "numpy.ndarray" and array.data.startswith(header):
        return np.frombuffer(memoryview(array.data)[len(header) :], dtype).reshape(array.shape)
    return array.numpy()
