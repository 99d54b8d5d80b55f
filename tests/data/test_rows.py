"""Lists of rows without an object per client: the same lists, hashes and statistics as a loop over clients gives."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data import federation_file, scaling
from fedimb.data.federation_file import digest, read_federation, write_federation
from fedimb.data.rows import RowLists
from fedimb.errors import DataError

few = settings(max_examples=40, deadline=None)


@few
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 99)), unique_by=lambda pair: pair[1]))
def test_rows_sorted_by_owner_are_the_lists_of_a_loop(pairs):
    owner, rows = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    found = RowLists.by_owner(rows, owner, 7)
    assert [part.tolist() for part in found] == [sorted(rows[owner == k].tolist()) for k in range(7)]
    assert found.sizes.tolist() == [int((owner == k).sum()) for k in range(7)]
    assert found.owners().tolist() == sorted(owner.tolist())


def hashed_in_a_loop(train, validation, test, names, fingerprint, public):
    sha = hashlib.sha256(json.dumps([federation_file.FORMAT, len(train), list(names), fingerprint]).encode())
    for rows in (*train, *validation, test, *((public,) if len(public) else ())):
        sha.update(len(rows).to_bytes(8, "little"))
        sha.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
    return sha.hexdigest()


@few
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 8), st.booleans())
def test_the_hash_is_that_of_a_loop_over_clients(sizes, at_once, with_public):
    rng = np.random.default_rng(0)
    train, validation = ([rng.integers(0, 10**9, n) for n in one] for one in (sizes, sizes[::-1]))
    given_ = (train, validation, np.arange(4), ("a", "b"), "f", np.arange(3 if with_public else 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federation_file, "_AT_ONCE", at_once)
        assert digest(*given_) == hashed_in_a_loop(*given_)


@few
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 9), st.integers(0, 9))
def test_a_tables_scaling_is_that_of_a_loop_over_clients_to_the_bit(sizes, features, at_once, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 100, (sum(sizes), features)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    lists = RowLists.by_owner(rng.permutation(len(x)), np.repeat(np.arange(len(sizes)), sizes), len(sizes))
    scaled = rng.random(features) < 0.8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "_CLIENTS", at_once)
        patch.setattr(scaling, "_CHUNK", 4)
        found = scaling.scaling_of_rows(x, lists, scaled)
    wanted = scaling.federated_scaling([x[rows] for rows in lists], scaled)
    np.testing.assert_array_equal(found.mean, wanted.mean)
    np.testing.assert_array_equal(found.deviation, wanted.deviation)


def test_many_counts_go_into_the_arrays_and_are_protected_there(tmp_path, monkeypatch):
    monkeypatch.setattr(federation_file, "_MOST_COUNTS", 3)
    counts = np.array([[3, 0], [1, 2]])
    lists = RowLists.of([np.arange(3), np.arange(3, 6)])
    facts = {"class_names": ["a", "b"]}
    write_federation(tmp_path, facts, counts, lists, RowLists.empty(2), np.arange(6, 8), np.zeros(0, np.int64))
    said = json.loads((tmp_path / "partition.json").read_text())
    assert ("counts" in said, said["class_totals"]) == (False, [4, 2])
    assert read_federation(tmp_path)[1].tolist() == counts.tolist()
    with np.load(tmp_path / "partition.npz") as arrays:
        changed = dict(arrays) | {"counts": counts[::-1]}
    np.savez(tmp_path / "partition.npz", **changed)
    with pytest.raises(DataError, match=r"the counts in partition.npz were changed"):
        read_federation(tmp_path)
