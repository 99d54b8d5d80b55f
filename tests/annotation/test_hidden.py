import pickle

import numpy as np
import pytest

from fedimb.annotation.hidden import HiddenLabels
from fedimb.data.store import Store
from fedimb.data.views import UNKNOWN, ClientData, to_tensors
from fedimb.encoders.embed import open_encoder
from fedimb.errors import DataError

TRAIN = [1, 3, 4, 5, 7, 9]  # labels 1, 3, 0, 1, 3, 1


def arrays_within(thing, seen, depth=0):
    """Every array that can be reached through attributes, dicts, lists and tuples, private ones included."""
    if id(thing) in seen or depth > 6:
        return
    seen.add(id(thing))
    if hasattr(thing, "detach"):
        yield thing.detach().cpu().numpy()
    elif isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from arrays_within(value, seen, depth + 1)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from arrays_within(value, seen, depth + 1)
    elif hasattr(thing, "__dict__"):
        yield from arrays_within(vars(thing), seen, depth + 1)


@pytest.mark.parametrize("touched_before", [False, True], ids=["fresh", "views kept from before"])
def test_no_path_of_a_hidden_client_leads_to_a_label(client, touched_before):
    if touched_before:
        for view in ("train", "trained_on", "validation"):
            client.tensors(view)
        client.set_view("labelled", np.array([3]))
        client.tensors("labelled")
    client.hide_labels()
    client.set_view("pool", np.array(TRAIN))
    client.set_view("coreset", np.array(TRAIN))
    for view in ("train", "pool", "coreset"):
        x, y = client.tensors(view)
        assert x[:, 0, 0].tolist() == TRAIN
        assert y.tolist() == [UNKNOWN] * 6
        assert client.counts(view).tolist() == [0, 0, 0, 0]
        with pytest.raises(DataError, match="without a label"):
            client.primary(view)
    assert client.rows("trained_on").size == 0
    assert len(client.tensors("trained_on")[1]) == 0
    assert (client.store.y == UNKNOWN).all()
    assert client.store.targets is None
    assert to_tensors(client.store, np.array(TRAIN))[1].unique().tolist() == [UNKNOWN]
    with pytest.raises(DataError, match="hidden"):
        client.store.class_counts(np.array(TRAIN))
    with pytest.raises(DataError, match="row 1 has no label yet"):
        client.set_view("labelled", np.array(TRAIN))
    with pytest.raises(ValueError, match="read-only"):
        client.store.y[0] = 1
    # Nor do private attributes hold them: of 20 labels 0..3 in order, no array knows the training rows'.
    truth = np.arange(20) % 4
    for found in arrays_within(client, set()):
        if found.dtype.kind in "iu" and found.shape == (20,):
            assert not np.array_equal(found, truth)
        if found.shape == (6,) and found.dtype.kind in "iuf":
            assert not np.array_equal(found, truth[TRAIN])


def test_an_encoder_given_the_hidden_store_finds_no_label(client):
    client.hide_labels()
    assert open_encoder({"name": "identity"}, client.store) is not None
    assert set(np.unique(client.store.y)) == {UNKNOWN}


def test_the_search_of_this_test_would_find_labels_that_are_not_hidden(client):
    found = [a for a in arrays_within(client, set()) if a.shape == (20,) and a.dtype.kind in "iu"]
    assert any(np.array_equal(a, np.arange(20) % 4) for a in found)


def test_given_labels_are_known_and_no_others(client):
    client.set_labels(np.array([5, 3]), np.array([1, 2]))  # 2 is not the truth: what the reader said counts
    client.set_view("labelled", np.array([3, 5]))
    client.set_view("pool", np.array([1, 4, 7, 9]))
    assert client.tensors("labelled")[1].tolist() == [2, 1]
    assert client.primary("labelled").tolist() == [2, 1]
    assert client.tensors("train")[1].tolist() == [-1, 2, -1, 1, -1, -1]
    assert client.counts("train").tolist() == [0, 1, 1, 0]
    assert client.rows("trained_on").tolist() == [3, 5]
    assert client.tensors("trained_on")[1].tolist() == [2, 1]
    client.set_view("coreset", np.array([1, 5]))
    assert client.rows("trained_on").tolist() == [5]


def test_later_labels_replace_earlier_ones_and_inputs_are_kept(client):
    client.set_labels(np.array([1]), np.array([1]))
    client.set_view("labelled", np.array([1]))
    x = client.tensors("train")[0]
    assert client.tensors("trained_on")[1].tolist() == [1]
    client.set_labels(np.array([3, 9]), np.array([3, 0]))
    assert not client.has("labelled")  # its row has no label any more
    assert client.tensors("train")[0] is x
    assert client.tensors("train")[1].tolist() == [-1, 3, -1, -1, -1, 0]
    assert client.tensors("trained_on")[1].tolist() == [3, 0]
    client.hide_labels()
    assert client.counts("train").tolist() == [1, 0, 0, 1]


def test_validation_rows_keep_their_labels(client):
    client.hide_labels()
    assert client.tensors("validation")[1].tolist() == [2]
    assert client.counts("validation").tolist() == [0, 0, 1, 0]
    assert client.primary("validation").tolist() == [2]


def test_hiding_at_one_client_leaves_others_their_labels(store, client):
    client.hide_labels()
    other = ClientData(store, np.array([6]), np.array([], dtype=np.int64))
    assert other.tensors("train")[1].tolist() == [2]
    assert not other.labels_hidden
    assert client.labels_hidden


@pytest.mark.parametrize(
    ("rows", "labels", "says"),
    [
        ([2], [1], "row 2 is not a training row"),
        ([1, 1], [0, 0], "repeated"),
        ([1], [4], "class id from 0 to 3"),
        ([1], [-1], "class id from 0 to 3"),
        ([1, 3], [1], "class id from 0 to 3"),
    ],
)
def test_labels_that_cannot_be_are_refused(client, rows, labels, says):
    with pytest.raises(DataError, match=says):
        client.set_labels(np.array(rows), np.array(labels))


def test_several_labels_per_row_cannot_be_hidden(several):
    with pytest.raises(DataError, match="one class per row"):
        several.hide_labels()


@pytest.fixture
def several(tmp_path):
    from fedimb.data.arrays import SourceData

    targets = np.array([[1, 0], [1, 1], [0, 1]], dtype=np.uint8)
    source = SourceData(
        np.zeros((3, 2), np.float32), np.array([0, 1, 1]), ("a", "b"), task="multilabel", targets=targets
    )
    return ClientData(Store.build(source, tmp_path / "several", "f"), np.arange(3), np.empty(0, np.int64))


def test_hidden_labels_are_counted_each_time(store):
    hidden = HiddenLabels(store, np.array([7, 2, 5]))
    assert hidden.reveal(np.array([7, 5])).tolist() == [3, 1]
    assert hidden.reveal(np.array([7])).tolist() == [3]
    assert hidden.accesses == 3
    assert hidden.reveal(np.empty(0, np.int64)).size == 0
    with pytest.raises(DataError, match="row 3 is not a training row"):
        hidden.reveal(np.array([5, 3]))
    assert hidden.accesses == 3


def test_hidden_labels_do_not_travel(store):
    with pytest.raises(TypeError, match="do not leave"):
        pickle.dumps(HiddenLabels(store, np.array([1])))
