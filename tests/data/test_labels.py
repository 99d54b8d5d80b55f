"""Several labels per row: the primary class, the class that means none, and what a store and a client make of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.arrays import SourceData
from fedimb.data.federation import Federation
from fedimb.data.labels import as_targets, check_row, complete, none_class, primary_class
from fedimb.data.prepare import prepare
from fedimb.data.store import Store
from fedimb.data.views import ClientData, to_tensors
from fedimb.errors import DataError

# Class c is common and nearly always there, a and b are rarer: 2, 2 and 5 rows.
TARGETS = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]], np.uint8)


@st.composite
def tables(draw):
    n, width = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    cells = draw(st.lists(st.booleans(), min_size=n * width, max_size=n * width))
    return np.array(cells, np.uint8).reshape(n, width)


@given(tables())
@settings(max_examples=25, deadline=None)
def test_every_row_has_a_label_and_its_primary_one_is_its_rarest(table):
    names = tuple("abcde"[: table.shape[1]])
    y, targets, found = complete(table, names)
    bare = ~table.any(axis=1)
    assert found == (names + ("none",) * bool(bare.any()))
    assert np.array_equal(targets[:, : len(names)], table)
    if bare.any():
        assert np.array_equal(targets[:, -1] == 1, bare)
    counts = targets.sum(axis=0)
    for row, c in zip(targets, y, strict=True):
        assert row[c] == 1
        assert (counts[c], c) == min((counts[k], k) for k in np.flatnonzero(row))


def test_the_primary_class_by_hand():
    assert primary_class(TARGETS).tolist() == [0, 1, 0, 2, 2, 2]


def test_a_class_of_the_source_that_means_none_takes_the_rows_without_a_label():
    table = np.array([[1, 0], [0, 0], [0, 1]], np.uint8)
    for name in ("No Finding", "NONE", "no_finding", "Normal"):
        y, targets, names = complete(table, ("mass", name))
        assert names == ("mass", name)
        assert (y.tolist(), targets.tolist()) == ([0, 1, 1], [[1, 0], [0, 1], [0, 1]])
    assert none_class(("mass", "abnormal", "nodule")) is None
    assert table.tolist() == [[1, 0], [0, 0], [0, 1]]  # the table given is not written to


def test_a_class_that_means_none_may_be_named_after_the_columns_and_is_then_always_there():
    table = np.array([[1, 0], [0, 1]], np.uint8)
    y, targets, names = complete(table, ("a", "b", "none"))
    assert (y.tolist(), targets.tolist(), names) == ([0, 1], [[1, 0, 0], [0, 1, 0]], ("a", "b", "none"))
    with pytest.raises(DataError, match="3 names for 2 columns"):
        complete(table, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (("a", "a"), "label 'a' is named twice"),
        (("a", ""), "is empty"),
        (("b", "no finding"), "label 'no finding' stands beside 'b'"),
    ],
)
def test_labels_that_cannot_stand_together_are_refused(labels, says):
    with pytest.raises(DataError, match=says):
        check_row(labels)
    check_row(("a", "b"))
    check_row(("none",))
    check_row(())


def source(targets=TARGETS, names=("a", "b", "c"), **columns):
    x = np.arange(2 * len(targets), dtype=np.float32).reshape(-1, 2)
    y, targets, names = complete(targets, names)
    return SourceData(x, y, names, task="multilabel", targets=targets, **columns)


def test_a_store_keeps_targets_and_a_client_has_both(tmp_path):
    Store.build(source(), tmp_path / "s", "f")
    store = Store.open(tmp_path / "s")
    assert np.array_equal(store.targets, TARGETS)
    assert store.task == "multilabel"
    assert store.class_counts(np.array([0, 1, 3])).tolist() == [1, 1, 3]
    client = ClientData(store, np.array([3, 1, 0]), np.array([2]))
    x, y = client.tensors("train")
    assert (x.dtype, y.dtype, y.tolist()) == (torch.float32, torch.float32, TARGETS[[0, 1, 3]].tolist())
    assert (client.primary("train").dtype, client.primary("train").tolist()) == (torch.int64, [0, 1, 2])
    assert client.counts("train").tolist() == [1, 1, 3]
    assert client.task == "multilabel"
    client.set_view("labelled", np.array([1]))
    assert client.primary("trained_on").tolist() == [1]
    assert tuple(to_tensors(store, np.empty(0, np.int64))[1].shape) == (0, 3)


def test_one_label_per_row_is_its_own_primary_class(tmp_path):
    data = SourceData(np.zeros((3, 2), np.float32), np.array([1, 0, 1]), ("a", "b"))
    client = ClientData(Store.build(data, tmp_path / "s", "f"), np.arange(3), np.arange(0))
    assert client.primary("train") is client.tensors("train")[1]
    assert client.task == "multiclass"


def test_targets_that_do_not_fit_are_a_damaged_store(tmp_path):
    Store.build(source(), tmp_path / "s", "f")
    np.save(tmp_path / "s" / "targets.npy", TARGETS[:, :2])
    with pytest.raises(DataError, match="damaged"):
        Store.open(tmp_path / "s")


@pytest.fixture
def federation(tmp_path):
    table = np.random.default_rng(0).random((120, 3)) < [0.05, 0.2, 0.7]
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(1).normal(size=(120, 4)).astype(np.float32), y=table)
    data = {
        "source": {"name": "npz", "path": str(tmp_path / "d.npz")},
        "test": {"name": "stratified", "fraction": 0.25},
        "validation": 0.2,
    }
    return prepare(data, {"name": "dirichlet", "alpha": 0.5}, clients=4, seed=0)


def test_rows_are_dealt_once_and_counts_are_of_all_labels(federation, tmp_path):
    store = federation.store
    assert federation.task == "multilabel"
    assert federation.class_names == ("0", "1", "2", "none")
    dealt = np.concatenate([federation.test, *federation.train, *federation.validation])
    assert sorted(dealt.tolist()) == list(range(120))
    held = np.setdiff1d(np.arange(120), federation.test)
    assert federation.counts.sum(axis=0).tolist() == store.targets[held].sum(axis=0).tolist()
    assert federation.counts.sum() > len(held)
    assert federation.minority == (0,)  # the rarest by all its rows
    assert (store.targets[federation.test].sum(axis=0) > 0).all()
    federation.save(tmp_path / "run")
    loaded = Federation.load(tmp_path / "run")
    assert (loaded.counts.tolist(), loaded.sha, loaded.task) == (
        federation.counts.tolist(),
        federation.sha,
        "multilabel",
    )


def test_names_become_targets():
    assert as_targets([("b",), (), ("a", "c")], ("a", "b", "c")).tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1]]
