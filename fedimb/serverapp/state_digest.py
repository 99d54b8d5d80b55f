"""A deep digest of an object, by attribute, which stays equal exactly as long as nothing in the object changes.

It looks into ``__dict__`` and slots, containers, nested objects, closures, arrays, tensors and random generators, and
follows cycles. It does not look into modules and classes, so globals are not covered; loggers, locks, open
files and other objects without readable state count by identity. Buffers are checked with CRC-32: one change in four
billion would be missed.
"""

import functools
import io
import logging
import random
import zlib
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

from fedimb.by_reference import view

_SCALARS = (type(None), bool, int, float, complex, str, bytes)
_BY_IDENTITY = (ModuleType, logging.Logger, logging.Handler, io.TextIOBase, io.BufferedIOBase, io.RawIOBase)
_SHARED_BY_CLASS = (
    list, dict, set, deque, bytearray, np.ndarray, torch.Tensor, random.Random, np.random.Generator, torch.Generator,
)  # fmt: skip
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, so all its state is in its attributes
_MISSING = object()


def digest(value: object, apart: Mapping[int, object] | None = None, kinds: tuple[type, ...] = ()) -> bytes:
    """Bytes that change when anything inside ``value`` does.

    Args:
        value: anything.
        apart: objects by id that count by identity, whatever changes in them.
        kinds: types whose objects also count by identity.
    """
    if type(value) in _SCALARS:  # most attributes are settings
        return f"{type(value).__name__} {value!r}".encode("utf-8", "surrogatepass")
    if isinstance(value, FunctionType) and not (
        value.__closure__ or value.__defaults__ or value.__kwdefaults__ or value.__dict__
    ):
        return f"{value.__module__} {value.__qualname__} {value.__code__.co_firstlineno}".encode()
    walk = _Walk(apart or {}, kinds)
    walk.add(value)
    return walk.hash.digest()


def attributes(owner: object) -> dict[str, Any]:
    """An object's state by name: its ``__dict__``, its slots, and mutable containers of its classes.

    Values computed by a `functools.cached_property` are left out, as they are computed again.
    """
    return _instance(owner) | {
        name: value for name in _layout(type(owner)).shared if (value := getattr(owner, name, _MISSING)) is not _MISSING
    }


def _instance(owner: object) -> dict[str, Any]:
    layout = _layout(type(owner))
    found = {name: value for name, value in getattr(owner, "__dict__", {}).items() if name not in layout.computed}
    for name in layout.slots:
        if (value := getattr(owner, name, _MISSING)) is not _MISSING:
            found[name] = value
    return found


@dataclass(frozen=True)
class _Layout:
    """Facts about a class's objects: names of slots, of cached properties, and of containers that they share."""

    slots: tuple[str, ...]
    computed: frozenset[str]
    shared: tuple[str, ...]
    in_python: bool


_LAYOUTS: WeakKeyDictionary[type, _Layout] = WeakKeyDictionary()


def _layout(kind: type) -> _Layout:
    if (known := _LAYOUTS.get(kind)) is not None:
        return known
    slots, computed, shared = [], set(), []
    for cls in kind.__mro__[:-1]:
        own = vars(cls).get("__slots__", ())
        for name in (own,) if isinstance(own, str) else own:
            if name not in ("__dict__", "__weakref__"):
                private = name[:2] == "__" and name[-2:] != "__"
                slots.append(f"_{cls.__name__.lstrip('_')}{name}" if private else name)
        for name, value in vars(cls).items():
            if isinstance(value, functools.cached_property):
                computed.add(name)
            elif isinstance(value, _SHARED_BY_CLASS) and not name.startswith(("__", "_abc_")):
                shared.append(name)
    in_python = all(cls.__flags__ & _HEAP_TYPE for cls in kind.__mro__[:-1])
    _LAYOUTS[kind] = layout = _Layout(tuple(slots), frozenset(computed), tuple(shared), in_python)
    return layout


class _Walk:
    """One digest in progress. ``alive`` keeps everything visited alive, so that no id is reused."""

    def __init__(self, apart: Mapping[int, object], kinds: tuple[type, ...]) -> None:
        self.hash = blake2b(digest_size=16)
        self._apart, self._kinds = apart, _BY_IDENTITY + kinds
        self._met: dict[int, int] = {}
        self._alive: list[object] = []

    def add(self, value: object) -> None:
        waiting = [value]
        while waiting:
            waiting.extend(reversed(self._one(waiting.pop())))

    def _note(self, *words: object) -> None:
        self.hash.update(repr(words).encode("utf-8", "surrogatepass"))

    def _one(self, value: Any) -> list[Any]:
        """Add one object to the digest, without its contents, which are returned."""
        kind = type(value)
        if kind in _SCALARS:
            self._note(kind.__name__, value)
            return []
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            self._note("number", value.dtype.str, value.tobytes())
            return []
        if id(value) in self._met:
            self._note("again", self._met[id(value)])
            return []
        self._met[id(value)] = len(self._met)
        self._alive.append(value)
        if id(value) in self._apart or isinstance(value, self._kinds):
            self._note("itself", id(value))
            return []
        if isinstance(value, type):
            self._note("class", value.__module__, value.__qualname__, id(value))
            return []
        inside = self._known(value)
        if inside is None:
            inside = self._object(value)
        self._note(kind.__module__, kind.__qualname__, len(inside))
        return inside

    def _known(self, value: Any) -> list[Any] | None:
        """The contents of an object of a known kind, after adding the object itself; None for any other."""
        match value:
            case np.ndarray():
                return [*self._buffer(value), *_values(value)]
            case torch.Tensor():
                return self._tensor(value)
            case Array():
                return [view(value)]
            case ArrayRecord():
                return [part for key, array in value.items() for part in (key, view(array))]
            case torch.Generator():
                return [value.get_state()]
            case np.random.Generator():
                return [value.bit_generator.state]
            case np.random.BitGenerator():
                return [value.state]
            case np.random.RandomState():
                return [value.get_state(legacy=False)]
            case random.Random() if not isinstance(value, random.SystemRandom):
                return [value.getstate(), *_values(value)]
            case dict():
                factory = value.default_factory if isinstance(value, defaultdict) else None
                return [factory, *(part for item in value.items() for part in item), *_values(value)]
            case list() | tuple():
                return [*value, *_values(value)]
            case deque():
                return [value.maxlen, *value, *_values(value)]
            case set() | frozenset():
                for each in sorted(digest(item, self._apart, self._kinds) for item in value):
                    self.hash.update(each)
                return _values(value)
            case bytearray() | memoryview():
                self._note(len(value), zlib.crc32(value))
                return []
            case Enum() | PurePath():
                self._note(str(value))
                return []
            case FunctionType():
                return self._function(value)
            case MethodType():
                return [value.__func__, value.__self__]
            case BuiltinFunctionType():
                self._note(value.__qualname__)
                return [] if isinstance(value.__self__, ModuleType | None) else [value.__self__]
            case functools.partial():
                return [value.func, value.args, value.keywords, *_values(value)]
            case GeneratorType():
                frame = value.gi_frame
                return ["ended"] if frame is None else [frame.f_lasti, dict(frame.f_locals)]
        return None

    def _buffer(self, value: np.ndarray) -> list[Any]:
        self._note(value.dtype.str, value.shape)
        if value.dtype.hasobject:
            return list(value.flat)
        flat = np.ascontiguousarray(value.T if value.flags.f_contiguous else value).reshape(-1)
        self._note(zlib.crc32(flat.view(np.uint8).data) if flat.nbytes else 0)
        return []

    def _tensor(self, value: torch.Tensor) -> list[Any]:
        self._note(str(value.dtype), tuple(value.shape), str(value.device), value.requires_grad)
        if value.device.type == "meta":
            return []
        plain = value.detach()
        plain = plain if value.layout == torch.strided and not value.is_quantized else plain.to_dense()
        flat = plain.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        self._note(zlib.crc32(flat.view(torch.uint8).numpy().data) if len(flat) else 0)
        return [value.grad] if value.is_leaf and value.grad is not None else []

    def _function(self, value: FunctionType) -> list[Any]:
        """Its code by location, its defaults, and the variables it closes over."""
        code = value.__code__
        self._note(code.co_filename, code.co_firstlineno, code.co_qualname)
        cells = []
        for cell in value.__closure__ or ():
            try:
                cells.append(cell.cell_contents)
            except ValueError:  # the cell is still empty
                cells.append(None)
        return [value.__defaults__, value.__kwdefaults__, *cells, *_values(value)]

    def _object(self, value: Any) -> list[Any]:
        """Any other object: its attributes; for one implemented in C, the state copied by pickle, else its id."""
        inside = [part for item in _instance(value).items() for part in item]
        if _layout(type(value)).in_python and (inside or hasattr(value, "__dict__")):
            return inside
        try:
            copied = value.__reduce_ex__(2)
        except Exception:  # a foreign class may raise anything: its state cannot be read
            self._note("itself", id(value))
            return inside
        if isinstance(copied, str):
            return [copied, *inside]
        return [*copied[:3], *(list(part) for part in copied[3:5] if part is not None), *inside]


def _values(value: object) -> list[Any]:
    """The attributes of an object that is also a container or a function."""
    return [part for item in getattr(value, "__dict__", {}).items() for part in item]
