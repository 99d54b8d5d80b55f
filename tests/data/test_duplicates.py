"""Identical rows get one number, whatever hash they have; different rows never do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedimb.data import duplicates
from fedimb.data.duplicates import exact_groups, near_groups
from fedimb.errors import DataError


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


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.float32]),
        st.tuples(st.integers(1, 8), st.integers(9, 14)),
        elements=st.sampled_from([0, 1]),
        fill=st.just(0),
    ),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 13)), max_size=6),
)
def test_rows_that_agree_in_the_middle_are_compared_whole(x, copies):
    for source, target, edge in copies:
        x[target % len(x)] = x[source % len(x)]
        x[target % len(x), [0, -1][edge % 2]] = edge % 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_KEY_BYTES", 4)
        assert np.array_equal(exact_groups(x), by_pairs(x))


def test_wide_rows_without_a_twin_are_not_hashed_whole(monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, (50, 1, 20, 20), dtype=np.uint8)
    x[30] = x[7]
    x[40] = x[7]
    x[40, 0, 0, 0] += 1  # alike in the middle
    seen, original = [], duplicates._hashes
    monkeypatch.setattr(duplicates, "_hashes", lambda rows: seen.append(rows.shape) or original(rows))
    groups = exact_groups(x)
    assert np.flatnonzero(groups != np.arange(50)).tolist() == [30]
    assert groups[30] == 7
    assert seen == [(50, 128), (3, 400)]


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


def pictures(n=60, side=16, seed=0):
    """Smooth random pictures [n, 1, side, side] uint8, far apart."""
    rough = np.random.default_rng(seed).integers(0, 256, (n, 1, 4, 4))
    return np.kron(rough, np.ones((side // 4, side // 4))).astype(np.uint8)


def noisy(x, spread, seed=1):
    noise = np.random.default_rng(seed).normal(0, spread, x.shape)
    return np.clip(np.rint(x + noise), 0, 255).astype(np.uint8)


def test_planted_near_copies_of_pictures_are_found_and_nothing_else():
    x = pictures()
    copies = np.concatenate([noisy(x[:20], 3), np.clip(x[20:40].astype(int) + 5, 0, 255).astype(np.uint8), x[40:50]])
    found = near_groups(np.concatenate([x, copies]), 1 / 255)
    assert found.tolist() == [*range(60), *range(50)]  # recall 50 of 50, and no other pair
    assert near_groups(np.concatenate([x, noisy(x, 20)]), 1 / 255).tolist() == [*range(120)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(1, 8, 8), (3, 13, 5), (2, 40)]), st.floats(2, 14))
def test_near_pictures_are_those_of_all_pairs(seed, shape, spread):
    draw = np.random.default_rng(seed)
    x = draw.integers(0, 256, (8, *shape)).astype(np.uint8)
    x = np.concatenate([x, noisy(x, spread, seed)]).astype(np.uint8)
    flat = x.reshape(len(x), -1).astype(float)
    near = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(2)) <= 8
    reach = np.linalg.matrix_power(near.astype(float), len(x)) > 0
    assert np.array_equal(near_groups(x, 1 / 255), np.argmax(reach, axis=1))


def test_the_range_of_values_sets_what_is_near():
    x = np.random.default_rng(0).integers(0, 17, (20, 1, 8, 8)).astype(np.uint8)
    other = x.copy()
    other[:, 0, 0, 0] ^= 1
    assert near_groups(np.concatenate([x, other]), 1 / 16).tolist() == [*range(20)] * 2  # one level of 16 in one pixel
    assert near_groups(np.concatenate([x, other]).astype(np.float32) / 16).tolist() == [*range(20)] * 2
    far = np.minimum(x, 15) + np.uint8(1)
    assert len(set(near_groups(np.concatenate([x, far]), 1 / 16).tolist())) == 40


def test_planted_near_copies_of_table_rows_are_found_and_nothing_else():
    draw = np.random.default_rng(0)
    x = draw.lognormal(0, 3, (300, 6)).astype(np.float32)
    x[:, 4] = draw.integers(0, 2, 300)
    x[::7, 0] = np.nan
    copies = x[:100] * (1 + draw.uniform(-4e-4, 4e-4, (100, 6))).astype(np.float32)
    copies[:, 4] = x[:100, 4]
    assert near_groups(np.concatenate([x, copies])).tolist() == [*range(300), *range(100)]
    flipped = copies.copy()
    flipped[:, 4] = 1 - flipped[:, 4]  # a column of 0 and 1 agrees or does not
    one_off = copies.copy()
    one_off[:, 3] = one_off[:, 3] * 1.05 + 0.05
    missing = copies.copy()
    missing[:, 2] = np.nan
    for other in (flipped, one_off, missing):
        assert near_groups(np.concatenate([x, other])).tolist() == [*range(400)]


def test_near_copies_are_refused_where_everything_is_near():
    x = np.random.default_rng(0).uniform(1, 1.0005, (400, 2)).astype(np.float32)
    with pytest.raises(DataError, match=r"tell nothing apart .* use data.split.group=duplicates"):
        near_groups(x)
