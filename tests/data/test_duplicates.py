"""Identical rows get one number, whatever hash they have; different rows never do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedimb.data import duplicates
from fedimb.data.duplicates import exact_groups


def by_pairs(x):
    """The first identical row of each row, by comparing all pairs."""
    flat = x.reshape(len(x), -1)
    same = [[np.array_equal(one, other, equal_nan=True) for other in flat] for one in flat]
    return np.argmax(same, axis=1)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.float32]),
        hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=5),
        elements=st.sampled_from([0, 1]),
    )
)
def test_as_a_comparison_of_all_pairs(x):
    assert np.array_equal(exact_groups(x), by_pairs(x))


def test_nan_equals_nan_and_minus_zero_equals_zero():
    payload = np.array([0x7FC00001, 0x7FC00000], np.uint32).view(np.float32)  # two bit patterns of NaN
    x = np.array([[payload[0], 0.0], [payload[1], -0.0], [0.0, payload[0]]], np.float32)
    assert exact_groups(x).tolist() == [0, 0, 2]


def test_rows_with_the_same_hash_are_told_apart_by_their_bytes(monkeypatch):
    monkeypatch.setattr(duplicates, "hash", lambda row: row[0] % 2, raising=False)
    x = np.array([[1], [3], [2], [3], [1], [5], [2]], np.uint8)
    assert exact_groups(x).tolist() == [0, 1, 2, 1, 0, 5, 2]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_without_rows_or_values(shape):
    assert exact_groups(np.zeros(shape, np.float32)).tolist() == [0] * shape[0]


def test_a_memory_map_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "_CHUNK_BYTES", 50)
    x = np.random.default_rng(0).integers(0, 2, (60, 2, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    kept = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.array_equal(exact_groups(kept), by_pairs(x))
    assert np.array_equal(exact_groups(kept[:, ::-1]), by_pairs(x[:, ::-1]))
