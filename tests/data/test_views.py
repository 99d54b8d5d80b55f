import numpy as np
import pytest
import torch

from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.data.views import ClientData, to_tensors
from fedimb.errors import DataError


@pytest.fixture
def store(tmp_path):
    torch.set_num_threads(1)
    x = np.arange(40, dtype=np.uint8).reshape(20, 1, 2)
    return Store.build(SourceData(x, np.arange(20) % 4, tuple("abcd"), scale=0.5), tmp_path / "s", "f")


@pytest.fixture
def client(store):
    return ClientData(store, np.array([9, 3, 5, 7, 1]), np.array([2]))


def test_tensors_are_the_rows_scaled_in_order(client):
    x, y = client.tensors("train")
    assert client.rows("train").tolist() == [1, 3, 5, 7, 9]
    assert (x.dtype, y.dtype, tuple(x.shape)) == (torch.float32, torch.int64, (5, 1, 2))
    assert x[:, 0, 0].tolist() == [1.0, 3.0, 5.0, 7.0, 9.0]
    assert y.tolist() == [1, 3, 1, 3, 1]
    assert client.counts("train").tolist() == [0, 3, 0, 2]
    assert client.counts("validation").tolist() == [0, 0, 1, 0]


def test_tensors_are_kept_until_the_view_changes(client):
    client.set_view("labelled", np.array([3, 1]))
    first = client.tensors("labelled")
    assert client.tensors("labelled")[0] is first[0]
    client.set_view("labelled", np.array([9]))
    assert client.tensors("labelled")[1].tolist() == [1]
    assert client.tensors("trained_on")[0].tolist() == [[[9.0, 9.5]]]


def test_trained_on_is_labelled_and_coreset(client):
    assert client.tensors("trained_on")[0] is client.tensors("train")[0]
    client.set_view("labelled", np.array([1, 3, 5]))
    assert client.rows("trained_on").tolist() == [1, 3, 5]
    client.tensors("trained_on")
    client.set_view("coreset", np.array([7, 5, 3]))
    assert client.rows("trained_on").tolist() == [3, 5]
    assert client.tensors("trained_on")[1].tolist() == [3, 1]
    client.set_view("labelled", None)
    assert client.rows("trained_on").tolist() == [3, 5, 7]
    assert client.has("coreset")
    assert not client.has("labelled")


def test_empty_views_keep_their_shape(store):
    empty = ClientData(store, np.empty(0, np.int64), np.empty(0, np.int64))
    x, y = empty.tensors("trained_on")
    assert (tuple(x.shape), tuple(y.shape), empty.counts("train").tolist()) == ((0, 1, 2), (0,), [0, 0, 0, 0])


def test_tensors_do_not_alias_the_read_only_map(store):
    x, y = to_tensors(store, np.array([4]))
    x += 1
    y += 1
    assert (store.x[4, 0, 0], store.y[4]) == (8, 0)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda c: c.set_view("train", np.array([1])), "cannot be set"),
        (lambda c: c.set_view("labelled", np.array([1, 2])), "row 2 is not a training row"),
        (lambda c: c.set_view("labelled", np.array([1, 1])), "repeated"),
        (lambda c: c.rows("pool"), "'pool' is not set"),
        (lambda c: c.tensors("labeled"), "Did you mean 'labelled'"),
    ],
)
def test_misuse_is_refused(client, act, says):
    with pytest.raises(DataError, match=says):
        act(client)


def test_mismatched_rows_stand_in_the_order_of_train_and_hide_their_labels_too(store):
    shown = {1: 17, 3: 11, 5: 13, 7: 19, 9: 5}
    data = ClientData(
        store, np.array([9, 3, 5, 7, 1]), np.array([2]), None, lambda rows: np.array([shown[r] for r in rows])
    )
    assert data.rows("mismatched").tolist() == [17, 11, 13, 19, 5]
    assert data.tensors("mismatched")[0][:, 0, 0].tolist() == [17.0, 11.0, 13.0, 19.0, 5.0]
    data.set_labels(np.array([3, 9]), np.array([3, 1]))
    assert data.tensors("mismatched")[1].tolist() == [-1, 3, -1, -1, 1]  # the row's label, not the picture's


def test_a_real_site_has_no_mismatched_view(client):
    with pytest.raises(DataError, match="only in a simulation"):
        client.rows("mismatched")
