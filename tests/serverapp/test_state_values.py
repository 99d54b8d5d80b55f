"""What a state dict holds comes back from a file with its types, its bits and its aliases, or is refused by name."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from own_method import own_method
from small_runs import launch_in

from fedimb.clients.base import Client
from fedimb.contracts.base import Contract
from fedimb.errors import RunFailed
from fedimb.records import array_record, load_arrays, save_arrays, to_numpy
from fedimb.serverapp.state_dict import check_shared, decode, encode, load_state
from fedimb.serverapp.state_digest import digest
from fedimb.strategies.base import Method

TINY = ("engine=inline", "data.imbalance_factor=5", "data.n_max=10", "clients.count=2", "rounds=3")


def test_a_value_within_itself_is_refused():
    class Round(FedAvg):
        def state_dict(self):
            loop: list[Any] = [1]
            loop.append({"again": loop})
            return {"loop": loop}

        loop = None

    with pytest.raises(RunFailed, match=r"state_dict\(\)\['loop'\]\[1\]\['again'\] contains itself"):
        encode(Round())


@pytest.mark.parametrize("state", [None, [], {1: 2}])
def test_a_state_dict_is_a_dict_by_attribute_name(state):
    cls = type("Wrong", (FedAvg,), {"state_dict": lambda self: state})
    with pytest.raises(RunFailed, match=r"aggregator Wrong: state_dict\(\) must return a dict of values by attribute"):
        encode(cls())


def test_an_item_that_is_no_attribute_needs_load_state_dict():
    cls = type("Named", (FedAvg,), {"state_dict": lambda self: {"other": 1}})
    with pytest.raises(RunFailed, match="'other', which is not an attribute"):
        encode(cls())


EXACT = {
    "none": None,
    "numbers": [True, 1, -0.0, 1.0, 1e-320, float("inf"), 2**200, 0.1],
    "text": ["", "\u00e9", "\ud800", b"\x00\xff", b""],
    "empty": [[], {}, (), [[]], {"a": {}}],
    "keys": {1: "a", "1": "b", "": 0, -3: None, "a/b": 1, "dict": 2},
    "tuples": (1, (2.0, [3, (4,)])),
    "tags": [{"array": 1}, {"tuple": [1]}],
    "scalars": [np.float32(0.1), np.float64(0.1), np.int8(-3), np.bool_(True), np.str_("x"), np.datetime64("2020")],
    "arrays": [
        np.zeros(()), np.zeros((2, 0), np.float16), np.arange(6, dtype=np.int16).reshape(2, 3), np.array(["a", "bc"]),
        np.array([1 + 2j]), np.arange(3, dtype=">i4"), np.array([True]),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([np.nan, -0.0]), np.arange(6.0)[::2],
    ],
    "tensors": [
        torch.tensor(1.5), torch.ones(2, 3, dtype=torch.bfloat16), torch.zeros(0, 2), torch.tensor([True, False]),
        torch.arange(6).reshape(2, 3).T, torch.tensor([1 + 2j]), torch.tensor([1.0, float("nan")], dtype=torch.float16),
    ],
    "record": array_record({"w": np.ones((2, 2), np.float32), "n": np.array(3)}),
}  # fmt: skip


class Anything(FedAvg):
    """Keeps whatever it is given."""

    def __init__(self, it: Any = None) -> None:
        super().__init__()
        self.it = it

    def state_dict(self):
        return {"it": self.it}


def identical(one: Any, two: Any) -> None:
    """Same types, all the way down, and same bits."""
    assert type(one) is type(two)
    if isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            identical(a, b)
    elif isinstance(one, dict):
        assert [(type(k), k) for k in one] == [(type(k), k) for k in two]
        identical(list(one.values()), list(two.values()))
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert one.tobytes() == two.tobytes()
        assert two.flags.writeable
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert digest(one) == digest(two)
    elif hasattr(one, "items"):
        identical(to_numpy(one), to_numpy(two))
    else:
        assert repr(one) == repr(two)


@pytest.mark.parametrize("name", EXACT)
def test_values_come_back_from_a_file_with_their_types_and_bits(name, tmp_path):
    spec, arrays = encode(Anything({"x": EXACT[name]}))
    save_arrays(tmp_path / "file", arrays, {"spec": spec})
    read, info = load_arrays(tmp_path / "file")
    again = Anything()
    load_state(again, decode(info["spec"], read))
    identical(again.it, {"x": EXACT[name]})


def test_the_order_of_an_arrays_axes_in_memory_is_kept():
    spec, arrays = encode(Anything(np.asfortranarray(np.ones((2, 3)))))
    assert decode(json.loads(json.dumps(spec)), arrays)["own"]["it"].flags.f_contiguous


class Holding(Method):
    """A method that keeps one value."""

    def __init__(self, value: object) -> None:
        super().__init__(FedAvg())
        self.held = value

    def state_dict(self) -> dict[str, Any]:
        return {"held": self.held}


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(3.0),
        lambda: torch.arange(3.0),
        lambda: [1.0],
        lambda: {"a": 1.0},
        lambda: array_record({"w": np.arange(3.0)}),
    ],
)
def test_what_is_kept_under_two_names_is_one_object_again(make, tmp_path):
    value = make()
    method, again = (Holding({"first": [0, [value]], "n": [], "second": one}) for one in (value, None))
    spec, arrays = encode(method)
    save_arrays(tmp_path / "state", arrays, {"spec": spec})
    read, info = load_arrays(tmp_path / "state")
    load_state(again, decode(info["spec"], read))
    assert again.held["second"] is again.held["first"][1][0]
    assert again.held["second"] is not value
    assert digest(again.held) == digest(method.held)


def overlapping() -> dict[str, Callable[[], tuple[Any, Any]]]:
    table, tensor = np.arange(6.0).reshape(2, 3), torch.arange(6.0)
    return {
        "a view": lambda: (table, table[0]),
        "its transpose": lambda: (table, table.T),
        "the base of a view": lambda: (table[1:], table),
        "a slice of a tensor": lambda: (tensor, tensor[2:4]),
        "a tensor's array": lambda: (tensor, tensor.numpy()),
    }


@pytest.mark.parametrize("name", overlapping())
def test_arrays_that_share_memory_are_refused_by_class_attribute_and_remedy(name):
    first, second = overlapping()[name]()
    says = r"^method Holding: state_dict\(\)\['held'\]\['b'\] shares memory with method Holding: state_dict\(\)"
    with pytest.raises(RunFailed, match=says + r"\['held'\]\['a'\]\[0\], .*keep only one .*load_state_dict"):
        encode(Holding({"a": [first], "b": second}))


def test_arrays_that_do_not_share_memory_may_be_of_one_buffer():
    table = np.arange(6.0)
    frozen = table.view()
    frozen.flags.writeable = False
    encode(Holding([table[:3], table[3:]]))
    encode(Holding([table[::2], table[1::2]]))
    encode(Holding([frozen[:4], frozen[2:]]))  # nobody can change one of the two


def test_an_array_that_two_methods_keep_is_refused():
    shared = np.zeros(3)
    with pytest.raises(RunFailed, match=r"Holding: state_dict\(\)\['held'\] shares memory with method Holding: state"):
        check_shared([Holding(shared), Holding(shared)])
    check_shared([Holding(shared), Holding(shared.copy())])


def test_a_view_is_refused_before_the_first_round(tmp_path):
    class Viewing(Holding):
        def __init__(self, inner: Any) -> None:
            super().__init__(np.zeros((2, 3)))
            self.inner, self.row = inner, self.held[0]

        def state_dict(self) -> dict[str, Any]:
            return super().state_dict() | {"row": self.row}

    with (
        own_method(Viewing, Client, Contract("viewing")) as groups,
        pytest.raises(RunFailed, match=r"Viewing: state_dict\(\)\['row'\] shares memory with .*\['held'\]"),
    ):
        launch_in(tmp_path, *TINY, "strategy=viewing", dirs=[groups])
