"""What survives a kill: the state dicts of methods, aggregators and auxiliary models, as in `torch.optim`.

A state dict has one item for each attribute that must be saved, under the attribute's name. Its values are numbers,
bools, None, strings, bytes, NumPy arrays and scalars, torch tensors on the CPU, Flower ArrayRecords, and lists, tuples
and dicts (keys: strings or ints) of these. They are
restored with their exact types, dtypes and bits; an object that is in a state dict twice is one object again. All
else is refused, with the place and what to keep instead: so are two arrays that share memory, as a view does with its
array, because a change to one would no longer reach the other, and what two methods or aggregators share.
"""

import io
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from fedimb.by_reference import view
from fedimb.errors import RunFailed
from fedimb.plain import StateDict
from fedimb.records import Arrays, array_record
from fedimb.serverapp.stock_state import stock_attributes

PAGE = "see docs/add-a-strategy.md, 'What your method keeps'"
_DEEPEST = 100
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_MUTABLE = (list, dict, np.ndarray, torch.Tensor, ArrayRecord)
_PLAIN = _INTEGERS | {"bool", "float16", "float32", "float64"}  # stored directly by safetensors
_REMEDIES: tuple[tuple[Any, str], ...] = (
    (set | frozenset, "keep sorted(...) and rebuild the set in load_state_dict"),
    (deque, "keep list(...) and rebuild the deque in load_state_dict"),
    (np.random.Generator, "keep its .bit_generator.state and set that in load_state_dict"),
    (np.random.RandomState, "keep its .get_state() and call .set_state in load_state_dict"),
    (torch.Generator, "keep its .get_state() and call .set_state in load_state_dict"),
    (random.Random, "keep its .getstate() and call .setstate in load_state_dict"),
    (torch.nn.Module, "keep dict(....state_dict()) and load that in load_state_dict"),
    (dict, "keep dict(...)"),
    (list, "keep list(...)"),
    (tuple, "keep tuple(...)"),
    (np.ndarray, "keep np.array(...) of numbers or text"),
    (torch.Tensor, "keep ....detach().cpu(), dense"),
    (bool | int | float | str, "keep the plain number or string"),
)


def remedy(value: object) -> str:
    """What to keep instead of a value that cannot be saved."""
    for kind, text in _REMEDIES:
        if isinstance(value, kind):
            return text
    if hasattr(value, "state_dict"):
        return "keep its .state_dict() and load that in load_state_dict"
    return "keep its numbers, strings, arrays, and lists and dicts of these"


def owner_name(owner: object) -> str:
    """The name of a method, an aggregator or an auxiliary model in errors."""
    if not isinstance(owner, Strategy):
        return f"model {type(owner).__name__}"
    return f"{'method' if hasattr(owner, 'program') else 'aggregator'} {type(owner).__name__}"


def own_state(owner: object) -> StateDict | None:
    """The result of ``owner.state_dict()``; None if its class has none.

    Raises:
        RunFailed: the result is not a dict by attribute name.
    """
    if (make := getattr(owner, "state_dict", None)) is None:
        return None
    state = make()
    if type(state) is not dict or not all(type(name) is str for name in state):
        raise RunFailed(f"{owner_name(owner)}: state_dict() must return a dict of values by attribute name; {PAGE}")
    if not hasattr(owner, "load_state_dict") and (other := [name for name in state if not hasattr(owner, name)]):
        raise RunFailed(
            f"{owner_name(owner)}: state_dict() has {other[0]!r}, which is not an attribute: name items after the "
            f"attributes they keep, or add load_state_dict; {PAGE}"
        )
    return dict(state)


def state_of(owner: object) -> StateDict:
    """All state to save of a method, aggregator or auxiliary model: its state dict, and Flower's attributes."""
    flower: dict[str, Any] = {}
    for name in stock_attributes(type(owner)):
        if hasattr(owner, name):
            value = getattr(owner, name)
            flower[name] = state_of(value) if isinstance(value, Strategy) else value
    return {"flower": flower, "own": own_state(owner)}


def load_state(owner: object, state: StateDict) -> None:
    """Inverse of `state_of`, onto a freshly built object of the same class."""
    for name, value in state["flower"].items():
        if isinstance(held := getattr(owner, name, None), Strategy):
            load_state(held, value)
        else:
            setattr(owner, name, value)
    if state["own"] is None:
        return
    if hasattr(owner, "load_state_dict"):
        owner.load_state_dict(state["own"])
        return
    for name, value in state["own"].items():
        setattr(owner, name, value)


def encode(owner: object) -> tuple[Any, Arrays]:
    """`state_of` an object as values for JSON, and arrays by number.

    Raises:
        RunFailed: a value cannot be saved, with its path and what to keep instead.
    """
    encoder = _Encoder(owner_name(owner))
    state = state_of(owner)
    flower = encoder.node(state["flower"], "", ())
    own = None if state["own"] is None else encoder.node(state["own"], "", ())
    refuse_shared(encoder.memory)
    return {"flower": flower, "own": own}, encoder.arrays


def decode(spec: Any, arrays: Arrays) -> StateDict:
    """Inverse of `encode`, for `load_state`; arrays are new and writable."""
    decoder = _Decoder(arrays)
    return {"flower": decoder.value(spec["flower"]), "own": decoder.value(spec["own"])}


def check_shared(owners: Sequence[object]) -> None:
    """Refuse arrays that the state dicts of two owners share: each owner's are restored by themselves.

    Raises:
        RunFailed: names both places.
    """
    memory = []
    for owner in owners:
        encoder = _Encoder(owner_name(owner))
        encoder.node(own_state(owner) or {}, "", ())
        memory += encoder.memory
    refuse_shared(memory)


def can_be_kept(value: object) -> bool:
    """Whether a value can be in a state dict as it is."""
    try:
        _Encoder("").node(value, "", ())
    except RunFailed:
        return False
    return True


@dataclass(frozen=True)
class Memory:
    """The memory of one array or tensor in a state dict: addresses [start, end), and where errors find it."""

    place: str
    start: int
    end: int
    writable: bool
    value: np.ndarray | torch.Tensor

    def overlaps(self, other: "Memory") -> bool:
        """Whether a change through one of them is seen in the other."""
        if not (self.writable or other.writable) or self.end <= other.start or other.end <= self.start:
            return False
        if isinstance(self.value, torch.Tensor) or isinstance(other.value, torch.Tensor):
            return True
        try:
            return np.shares_memory(self.value, other.value, max_work=10**4)  # type: ignore[arg-type]  # NumPy allows any bound
        except np.exceptions.TooHardError:
            return True


def refuse_shared(memory: Sequence[Memory]) -> None:
    """Refuse different arrays that share memory.

    Raises:
        RunFailed: names both places and what to keep instead.
    """
    open_ones: list[Memory] = []
    for one in sorted(memory, key=lambda m: m.start):
        open_ones = [other for other in open_ones if other.end > one.start]
        for other in open_ones:
            if one.overlaps(other):
                first, second = sorted((other, one), key=memory.index)
                raise RunFailed(
                    f"{second.place} shares memory with {first.place}, and a resumed run would have two separate "
                    "arrays: keep only one of them and make the other from it in load_state_dict, or keep a copy "
                    f"(.copy(), .clone()); {PAGE}"
                )
        open_ones.append(one)


class _Encoder:
    """Turns values into nodes for JSON: scalars and lists as they are, everything else tagged.

    A list, dict, array, tensor or record that was met before becomes ``{"same": number}``, by the order in which they
    are met.

    Attributes:
        arrays: what cannot be in JSON, by number.
        memory: that of every array and tensor met.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._met: dict[int, int] = {}
        self.arrays: Arrays = {}
        self.memory: list[Memory] = []

    def node(self, value: Any, path: str, above: tuple[int, ...]) -> Any:
        """The node of a value; ``above``: the containers it is in."""
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind is bytes:
            return {"bytes": self._put(np.frombuffer(value, np.uint8))}
        if isinstance(value, np.generic):
            return {"number": self._array(np.asarray(value), path)}
        if kind in _MUTABLE and id(value) not in above:
            if id(value) in self._met:
                return {"same": self._met[id(value)]}
            self._met[id(value)] = len(self._met)
        if kind is np.ndarray:
            self._note(value, path)
            return {"array": self._array(value, path)}
        if kind is torch.Tensor:
            node = self._tensor(value, path)
            self._note_tensor(value, path)
            return node
        if kind is ArrayRecord:
            for key, array in value.items():
                self._note(view(array), f"{path}[{key!r}]")
            return {"record": [[key, self._array(view(array), path)] for key, array in value.items()]}
        if kind not in (list, tuple, dict):
            self._refuse(value, path)
        if id(value) in above or len(above) >= _DEEPEST:
            why = "contains itself" if id(value) in above else f"is nested more than {_DEEPEST} deep"
            raise RunFailed(f"{self._owner}: state_dict(){path[:200]} {why}; {PAGE}")
        inside = (*above, id(value))
        if kind is dict:
            for key in value:
                if type(key) not in (str, int):
                    raise RunFailed(
                        f"{self._owner}: state_dict(){path} has the key {key!r} ({type(key).__name__}): keys are "
                        f"strings or ints; {PAGE}"
                    )
            return {"dict": [[key, self.node(item, f"{path}[{key!r}]", inside)] for key, item in value.items()]}
        nodes = [self.node(item, f"{path}[{index}]", inside) for index, item in enumerate(value)]
        return {"tuple": nodes} if kind is tuple else nodes

    def _refuse(self, value: object, path: str) -> None:
        kind = type(value)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        raise RunFailed(
            f"{self._owner}: state_dict(){path} is a {name}, which cannot be saved: {remedy(value)}; {PAGE}"
        )

    def _note(self, value: np.ndarray, path: str) -> None:
        if value.nbytes:
            spans = [(size - 1) * stride for size, stride in zip(value.shape, value.strides, strict=True)]
            first = value.__array_interface__["data"][0]
            start, end = first + sum(s for s in spans if s < 0), first + sum(s for s in spans if s > 0) + value.itemsize
            place = f"{self._owner}: state_dict(){path}"
            self.memory.append(Memory(place, start, end, value.flags.writeable, value))

    def _note_tensor(self, value: torch.Tensor, path: str) -> None:
        if value.numel():
            steps = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
            start, place = value.data_ptr(), f"{self._owner}: state_dict(){path}"
            self.memory.append(Memory(place, start, start + (steps + 1) * value.element_size(), True, value))

    def _put(self, array: np.ndarray) -> str:
        number = str(len(self.arrays))
        self.arrays[number] = array
        return number

    def _array(self, value: np.ndarray, path: str) -> dict[str, Any]:
        if value.dtype.hasobject:
            raise RunFailed(
                f"{self._owner}: state_dict(){path} is an array of Python objects: keep numbers or text; {PAGE}"
            )
        about = {"order": "F"} if value.flags.f_contiguous and not value.flags.c_contiguous else {}
        if value.dtype.name in _PLAIN and value.dtype.isnative:
            return {"at": self._put(value), **about}
        buffer = io.BytesIO()
        np.save(buffer, value, allow_pickle=False)
        return {"at": self._put(np.frombuffer(buffer.getvalue(), np.uint8)), "npy": True}

    def _tensor(self, value: torch.Tensor, path: str) -> dict[str, Any]:
        if value.layout != torch.strided or value.device.type != "cpu" or value.requires_grad or value.is_quantized:
            self._refuse(value, path)
        flat = value.resolve_conj().resolve_neg().contiguous().reshape(-1)
        about = {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
        return {"tensor": self._put(flat.view(torch.uint8).numpy() if len(flat) else np.zeros(0, np.uint8)), **about}


class _Decoder:
    """Inverse of `_Encoder`."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._made: list[Any] = []

    def value(self, node: Any) -> Any:
        """The value of a node; nodes must come in the order in which they were made."""
        if isinstance(node, list):
            return self._met(node)
        if not isinstance(node, dict):
            return node
        if "same" in node:
            return self._made[node["same"]]
        if "tuple" in node:
            return tuple(self.value(item) for item in node["tuple"])
        if "bytes" in node:
            return self._arrays[node["bytes"]].tobytes()
        if "number" in node:
            return _array_at(node["number"], self._arrays)[()]
        return self._met(node)

    def _met(self, node: Any) -> Any:
        place = len(self._made)
        self._made.append(None)
        self._made[place] = self._mutable(node)
        return self._made[place]

    def _mutable(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.value(item) for item in node]
        if "dict" in node:
            return {key: self.value(item) for key, item in node["dict"]}
        if "array" in node:
            return _array_at(node["array"], self._arrays)
        if "record" in node:
            return array_record({key: _array_at(at, self._arrays) for key, at in node["record"]})
        dtype, data = getattr(torch, node["dtype"]), bytearray(self._arrays[node["tensor"]].tobytes())
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return flat.reshape(node["shape"])


def _array_at(about: dict[str, Any], arrays: Arrays) -> np.ndarray:
    stored = arrays[about["at"]]
    if about.get("npy"):
        return np.asarray(np.load(io.BytesIO(stored.tobytes()), allow_pickle=False))
    return np.array(stored, order=about.get("order", "C"))


def wrapped(strategy: Strategy) -> Iterator[Strategy]:
    """A strategy and those inside Flower's wrappers (differential privacy), whose state is part of its state."""
    yield strategy
    for name in stock_attributes(type(strategy)):
        if isinstance(held := getattr(strategy, name, None), Strategy):
            yield from wrapped(held)
