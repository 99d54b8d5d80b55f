"""Arrays that travel by reference behave as Flower's own, and nobody can write through them."""

import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from fedimb.by_reference import ReferenceArray, reference, view
from fedimb.records import array_record, to_numpy

VALUES = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(3, dtype=np.int64),
    np.zeros((0, 4)),
    np.array([True, False]),
    np.array([1 + 2j]),
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_its_bytes_are_those_of_an_array_of_flower(value: np.ndarray) -> None:
    mine, flowers = ReferenceArray(value), Array(value)
    assert (mine.dtype, mine.shape, mine.stype, mine.data) == (
        flowers.dtype,
        flowers.shape,
        flowers.stype,
        flowers.data,
    )
    assert mine == flowers
    assert flowers == mine
    assert mine == ReferenceArray(value)
    assert mine.object_id == flowers.object_id
    assert mine != ReferenceArray(np.ones(7))


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_flowers_network_code_carries_it(value: np.ndarray) -> None:
    record = array_record({"a": value})
    children = {}

    def collect(thing):  # as Flower's pusher walks an object tree
        for key, child in (thing.children or {}).items():
            children[key] = child.deflate()
            collect(child)

    collect(record)
    arrays = [key for key, data in children.items() if not data.startswith(b"ArrayChunk")]
    chunks = {
        key: type(next(iter(record["a"].children.values()))).inflate(data)
        for key, data in children.items()
        if key not in arrays
    }
    inflated = Array.inflate(children[arrays[0]], chunks)
    np.testing.assert_array_equal(inflated.numpy(), value)
    assert inflated.numpy().dtype == value.dtype
    assert inflated.numpy().shape == value.shape


def test_nobody_can_write_through_it() -> None:
    mine = np.zeros(3, dtype=np.float32)
    array = reference(mine, copy=False)
    with pytest.raises(ValueError, match="read-only"):
        view(array)[0] = 1
    taken = array.numpy()
    taken[0] = 5
    to_numpy(array_record({"a": mine}))["a"][1] = 7
    assert mine.tolist() == [0, 0, 0]
    assert array.numpy().tolist() == [0, 0, 0]


def test_a_record_does_not_change_with_the_array_it_was_made_of() -> None:
    value = np.zeros(3)
    record = array_record({"a": value})
    value[0] = 9
    assert record["a"].numpy().tolist() == [0, 0, 0]


def test_another_process_gets_the_values_out_of_band() -> None:
    value = np.arange(100_000, dtype=np.float32)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(array_record({"a": value}), protocol=5, buffer_callback=buffers.append)
    assert len(data) < 2000
    assert sum(len(b.raw()) for b in buffers) == value.nbytes
    loaded: ArrayRecord = pickle.loads(data, buffers=buffers)
    np.testing.assert_array_equal(view(loaded["a"]), value)
    assert not view(loaded["a"]).flags.writeable


def test_what_is_no_number_travels_as_bytes() -> None:
    text = np.array(["a", "bc"])
    assert not isinstance(reference(text, copy=True), ReferenceArray)
    assert view(reference(text, copy=True)).tolist() == ["a", "bc"]
    swapped = np.arange(3, dtype=">i4")
    assert view(reference(swapped, copy=True)).tolist() == [0, 1, 2]
    fortran = np.asfortranarray(np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(view(reference(fortran, copy=False)), fortran)
