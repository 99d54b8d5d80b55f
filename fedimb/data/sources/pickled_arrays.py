"""Arrays of numbers from a pickle, read without running anything that the pickle names.

A pickle is a program: it may name any function of any module. Here the few names that numpy writes stand for objects of
this file, the instructions that numpy does not need are refused before the first is carried out, and the bytes of each
array are checked before numpy sees them.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import DataError

_INSTRUCTIONS = {
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINUNICODE", "BINUNICODE"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS"),
    *("EMPTY_DICT", "SETITEM", "SETITEMS"),
}
_DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
    MemoryError, RecursionError,
)  # fmt: skip
_KIND = re.compile(r"b1|[iu][1248]|f[248]")
_REMEDY = "only arrays of numbers are read; save x and y as plain arrays with numpy.savez"


def unpickle_arrays(data: bytes, place: str) -> dict[str, NDArray[Any]]:
    """The dict of arrays that numpy pickled as an object array without dimensions: ``np.savez(file, data={...})``.

    Both numpy 1 and 2 wrote such files, under other module names; protocols 2 to 5.

    Args:
        data: the pickle.
        place: for messages.

    Raises:
        DataError: anything else than a dict of arrays of numbers, or damaged bytes.
    """
    try:
        for number, (code, argument, _) in enumerate(pickletools.genops(data)):
            if code.name not in _INSTRUCTIONS:
                raise DataError(f"{place} holds a pickle with {code.name}{_shown(argument)}: {_REMEDY}")
            if (
                code.name.endswith("BINPUT") and (argument or 0) > number
            ):  # unpickling would make room for all before it
                raise ValueError("a place in memory that no pickle of this length needs")
        found = _Unpickler(io.BytesIO(data), place).load()
        held = found.item if isinstance(found, _Array) else found
        if not isinstance(held, dict):
            raise DataError(f"{place} holds a pickled {_word(held)}, not a dict of arrays: {_REMEDY}")
        return {_name(key, place): _numbers(key, value, place) for key, value in held.items()}
    except _NotNumbers as error:
        raise DataError(f"{place} holds an array {error}: {_REMEDY}") from None
    except _DAMAGE as error:
        raise DataError(f"{place} is damaged ({type(error).__name__}); copy the file again") from error


class _NotNumbers(ValueError):
    """What an array holds instead of numbers."""


class _Unpickler(pickle.Unpickler):
    """Knows the names that numpy writes, and no others."""

    def __init__(self, file: io.BytesIO, place: str) -> None:
        super().__init__(file)
        self._place = place

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for one of numpy's own names. DataError for any other name."""
        known = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise DataError(
                f"{self._place} names {module[:60]}.{name[:60]}, which could run code when it is read: {_REMEDY}"
            )
        return known

    def persistent_load(self, pid: object) -> Any:
        """Refused: there are no other files."""
        raise DataError(f"{self._place} refers to another file: {_REMEDY}")


class _StandIn:
    """A function under one of numpy's names. Without attributes: a pickle could set them."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise ValueError("a name of numpy is not to be changed")

    def __setstate__(self, state: object) -> None:
        raise ValueError("a name of numpy has no state")


class _DType:
    """numpy.dtype("f4") and the byte order that follows: plain numbers, or "O" for the array around the dict."""

    __slots__ = ("order", "text")

    def __init__(self, text: object, *_: object) -> None:
        if not isinstance(text, str) or not (_KIND.fullmatch(text) or text in ("O", "O8")):
            raise _NotNumbers(f"of type {str(text)[:40]!r}")
        self.text, self.order = text, "|"

    def __setstate__(self, state: Any) -> None:
        _, order, within, names, fields = state[:5]
        if order not in ("<", ">", "|") or (within, names, fields) != (None, None, None):
            raise ValueError("not a plain type")
        self.order = order

    def make(self) -> np.dtype[Any]:
        """As numpy's."""
        if self.text.startswith("O"):
            raise _NotNumbers("of Python objects")
        return np.dtype(self.order + self.text)


class _Array:
    """An array; or, without dimensions and of type O, the one object in it (``item``)."""

    __slots__ = ("item", "values")

    def __init__(self) -> None:
        self.item: object = None
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_column, raw = state
        if dtype.text.startswith("O"):
            if shape != () or not isinstance(raw, list) or len(raw) != 1:
                raise _NotNumbers("of Python objects")
            self.item = raw[0]
            return
        self.values = _from_bytes(raw, dtype, shape, "F" if by_column else "C")


def _from_bytes(raw: Any, dtype: _DType, shape: Any, order: Any) -> NDArray[Any]:
    kind = dtype.make()
    if not isinstance(raw, bytes | bytearray) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("not the bytes of an array")
    if len(raw) != math.prod(shape) * kind.itemsize or order not in ("C", "F"):
        raise ValueError("bytes and shape differ")
    return np.frombuffer(raw, kind).reshape(shape, order=order).astype(kind.newbyteorder("="), copy=False)


def _frombuffer(raw: Any, dtype: _DType, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.values = _from_bytes(raw, dtype, shape, order)
    return array


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise ValueError("not bytes")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], _StandIn] = {
    ("numpy", "ndarray"): _StandIn(_Array),
    ("numpy", "dtype"): _StandIn(_DType),
    ("numpy.core.multiarray", "_reconstruct"): _StandIn(lambda kind, shape, code: _Array()),
    ("numpy.core.numeric", "_frombuffer"): _StandIn(_frombuffer),
    ("_codecs", "encode"): _StandIn(_encode),
    ("__builtin__", "bytes"): _StandIn(lambda: b""),  # no bytes, in protocol 2
}


def _name(key: object, place: str) -> str:
    if not isinstance(key, str):
        raise DataError(f"{place} has a {_word(key)} as a key, not a name: {_REMEDY}")
    return key


def _numbers(key: str, value: object, place: str) -> NDArray[Any]:
    if not isinstance(value, _Array) or value.values is None:
        raise DataError(f"{place} {key} is a {_word(value)}, not an array of numbers: {_REMEDY}")
    return value.values


def _word(value: object) -> str:
    return "Python object" if isinstance(value, _Array | _DType | _StandIn) else type(value).__name__


def _shown(argument: object) -> str:
    return f" ({str(argument)[:60]})" if isinstance(argument, str) else ""
