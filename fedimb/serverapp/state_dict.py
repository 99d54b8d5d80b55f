"""What survives a kill: the state dicts of methods, aggregators and auxiliary models, as in `torch.optim`.

A state dict has one item for each attribute that must be saved, under the attribute's name. Its values are numbers,
bools, None, strings, bytes, NumPy arrays and scalars, torch tensors on the CPU, Flower ArrayRecords, and lists, tuples
and dicts (keys: strings or ints) of these. They are
restored with their exact types, dtypes and bits; two items that were the same object become two. Everything else is
refused, with the place and what to keep instead.
"""

import io
import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from fedimb.by_reference import view
from fedimb.errors import RunFailed
from fedimb.records import Arrays, array_record
from fedimb.serverapp.stock_state import stock_attributes

PAGE = "see docs/add-a-strategy.md, 'What your method keeps'"
_DEEPEST = 100
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
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


def own_state(owner: object) -> dict[str, Any] | None:
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


def state_of(owner: object) -> dict[str, Any]:
    """All state to save of a method, aggregator or auxiliary model: its state dict, and Flower's attributes."""
    flower: dict[str, Any] = {}
    for name in stock_attributes(type(owner)):
        if hasattr(owner, name):
            value = getattr(owner, name)
            flower[name] = state_of(value) if isinstance(value, Strategy) else value
    return {"flower": flower, "own": own_state(owner)}


def load_state(owner: object, state: dict[str, Any]) -> None:
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
    return {"flower": flower, "own": own}, encoder.arrays


def decode(spec: Any, arrays: Arrays) -> dict[str, Any]:
    """Inverse of `encode`, for `load_state`; arrays are new and writable."""
    return {"flower": _value(spec["flower"], arrays), "own": _value(spec["own"], arrays)}


def can_be_kept(value: object) -> bool:
    """Whether a value can be in a state dict as it is."""
    try:
        _Encoder("").node(value, "", ())
    except RunFailed:
        return False
    return True


class _Encoder:
    """Turns values into nodes for JSON: scalars and lists as they are, everything else tagged.

    Attributes:
        arrays: what cannot be in JSON, by number.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self.arrays: Arrays = {}

    def node(self, value: Any, path: str, above: tuple[int, ...]) -> Any:
        """The node of a value; ``above``: the containers it is in."""
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind is bytes:
            return {"bytes": self._put(np.frombuffer(value, np.uint8))}
        if kind is np.ndarray:
            return {"array": self._array(value, path)}
        if isinstance(value, np.generic):
            return {"number": self._array(np.asarray(value), path)}
        if kind is torch.Tensor:
            return self._tensor(value, path)
        if kind is ArrayRecord:
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


def _value(node: Any, arrays: Arrays) -> Any:
    """Inverse of `_Encoder.node`."""
    if isinstance(node, list):
        return [_value(item, arrays) for item in node]
    if not isinstance(node, dict):
        return node
    if "dict" in node:
        return {key: _value(item, arrays) for key, item in node["dict"]}
    if "tuple" in node:
        return tuple(_value(item, arrays) for item in node["tuple"])
    if "bytes" in node:
        return arrays[node["bytes"]].tobytes()
    if "array" in node:
        return _array_at(node["array"], arrays)
    if "number" in node:
        return _array_at(node["number"], arrays)[()]
    if "record" in node:
        return array_record({key: _array_at(at, arrays) for key, at in node["record"]})
    dtype, data = getattr(torch, node["dtype"]), bytearray(arrays[node["tensor"]].tobytes())
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
