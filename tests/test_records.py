import os

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedimb.errors import FedimbError
from fedimb.records import (
    array_record,
    load_arrays,
    pack,
    payload_bytes,
    save_arrays,
    to_numpy,
    unpack,
    view,
    write_atomic,
)

few = settings(max_examples=60, deadline=None)
names = st.text(st.characters(codec="utf-8"), max_size=6)
DTYPES = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes(endianness="?")
    | hnp.unicode_string_dtypes(max_len=4)
    | hnp.byte_string_dtypes(max_len=4)
)
arrays = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
floats = st.floats(allow_nan=False)
whole = st.integers(-(2**63), 2**63 - 1)
numbers = whole | floats | st.lists(whole, max_size=3) | st.lists(floats, max_size=3)
blobs = st.binary(max_size=20)
values = numbers | st.booleans() | names | blobs
values |= st.lists(st.booleans(), max_size=3) | st.lists(names, max_size=3) | st.lists(blobs, max_size=3)
records = (
    st.dictionaries(names, arrays, max_size=3).map(array_record)
    | st.dictionaries(names, numbers, max_size=3).map(MetricRecord)
    | st.dictionaries(names, values, max_size=3).map(ConfigRecord)
)
contents = st.dictionaries(names, records, max_size=4).map(RecordDict)


def equal(a, b):
    assert list(a) == list(b)
    for name in a:
        assert type(a[name]) is type(b[name])
        assert list(a[name]) == list(b[name])
        for key, value in a[name].items():
            other = b[name][key]
            if isinstance(value, Array):
                assert (value.dtype, value.shape) == (other.dtype, other.shape)
                x, y = value.numpy(), other.numpy()
                assert (x.dtype, x.shape) == (y.dtype, y.shape)
                np.testing.assert_array_equal(x, y)
            else:
                assert type(value) is type(other)
                assert value == other
                if isinstance(value, list):
                    assert [type(v) for v in value] == [type(v) for v in other]


@few
@given(contents)
def test_unpack_restores_what_was_packed(content):
    equal(content, unpack(pack(content)))


def test_zero_dimensional_arrays_keep_their_shape(tmp_path):
    save_arrays(tmp_path / "a", {"n": np.array(7), "empty": np.zeros((0, 3), np.float32)}, {})
    back, _ = load_arrays(tmp_path / "a")
    assert back["n"].shape == ()
    assert back["n"] == 7
    assert back["empty"].shape == (0, 3)
    assert back["empty"].dtype == np.float32


def test_two_records_whose_names_make_one_path_stay_apart():
    content = RecordDict({"a": array_record({"b/c": np.zeros(1)}), "a/b": array_record({"c": np.ones(1)})})
    equal(content, unpack(pack(content)))


def test_transposed_arrays_keep_their_values():
    matrix = np.arange(6).reshape(2, 3).T
    content = unpack(pack(RecordDict({"r": array_record({"m": matrix})})))
    np.testing.assert_array_equal(content["r"]["m"].numpy(), matrix)


def test_arrays_come_back_writable_and_on_their_own():
    record = array_record({"a": np.zeros(3)})
    first = to_numpy(record)
    first["a"] += 1
    np.testing.assert_array_equal(to_numpy(record)["a"], np.zeros(3))


def test_payload_is_counted_by_content_and_not_by_header():
    content = RecordDict(
        {
            "a": array_record({"x": np.zeros((2, 3), np.float32), "n": np.array(1, np.int64), "e": np.zeros((0, 4))}),
            "m": MetricRecord({"loss": 0.5, "list": [1, 2, 3]}),
            "c": ConfigRecord({"text": "é", "blob": b"1234", "flag": True, "blobs": [b"1", b"22"]}),
        }
    )
    assert payload_bytes(content) == (24 + 8 + 0) + (8 + 24) + (2 + 4 + 8 + 3)
    assert payload_bytes(RecordDict()) == 0


@few
@given(st.dictionaries(names, arrays, min_size=1, max_size=3))
def test_payload_of_arrays_is_their_memory(data):
    assert payload_bytes(RecordDict({"r": array_record(data)})) == sum(a.nbytes for a in data.values())


@few
@given(st.data())
def test_damaged_bytes_are_refused_or_read_but_never_another_exception(data):
    whole = pack(RecordDict({"a": array_record({"x": np.arange(4)}), "c": ConfigRecord({"k": [b"v"], "n": 1})}))
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for candidate in (bytes(damaged), whole[: data.draw(st.integers(0, len(whole) - 1))]):
        try:
            assert isinstance(unpack(candidate), RecordDict)
        except FedimbError as error:
            assert "damaged" in str(error)  # noqa: PT017 (either outcome is right)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 8, b"not a file of ours", b"\xff" * 64])
def test_foreign_bytes_raise_one_kind_of_error(damage, tmp_path):
    with pytest.raises(FedimbError, match="damaged"):
        unpack(damage)
    (tmp_path / "f").write_bytes(damage)
    with pytest.raises(FedimbError, match="cannot read"):
        load_arrays(tmp_path / "f")


def test_every_truncation_is_refused():
    whole = pack(RecordDict({"a": array_record({"x": np.arange(40)})}))
    for length in range(0, len(whole), 17):
        with pytest.raises(FedimbError):
            unpack(whole[:length])


def test_a_missing_file_names_itself(tmp_path):
    with pytest.raises(FedimbError, match="gone"):
        load_arrays(tmp_path / "gone")


def test_info_travels_with_arrays(tmp_path):
    info = {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    save_arrays(tmp_path / "deep" / "f", {"x": np.eye(2, dtype=np.float16)}, info)
    back, read = load_arrays(tmp_path / "deep" / "f")
    assert read == info
    assert back["x"].dtype == np.float16
    back["x"] += 1  # what is resumed from must be as writable as what was made


def test_write_atomic_replaces_and_leaves_only_the_file(tmp_path):
    for data in (b"one", b"two"):
        write_atomic(tmp_path / "sub" / "f", data)
        assert (tmp_path / "sub" / "f").read_bytes() == data
    assert os.listdir(tmp_path / "sub") == ["f"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    write_atomic(tmp_path / "f", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_array_record_holds_copies():
    source = np.zeros(3)
    record: ArrayRecord = array_record({"a": source})
    source += 1
    np.testing.assert_array_equal(record["a"].numpy(), np.zeros(3))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "float16", "complex64", ">f4"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3, 4)])
def test_our_arrays_are_flowers_byte_for_byte(dtype, shape):
    value = np.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2, dtype=dtype)
    (ours,) = array_record({"a": value}).values()
    flowers = Array(value)
    assert (ours.dtype, ours.shape, ours.stype, ours.data) == (
        flowers.dtype,
        flowers.shape,
        flowers.stype,
        flowers.data,
    )
    seen = view(flowers)
    assert seen.dtype == value.dtype
    assert np.array_equal(seen, value)
    assert not seen.flags.writeable or seen.size == 0
    assert to_numpy(array_record({"a": value}))["a"].flags.writeable


def test_views_of_unusual_arrays_fall_back_to_flowers_own_reading():
    transposed = np.arange(6.0).reshape(2, 3).T
    assert np.array_equal(view(Array(transposed)), transposed)
    texts = np.array(["a", "bc"])
    assert np.array_equal(view(Array(texts)), texts)
