import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as sklearn_confusion

from fedimb.evaluation.confusion import confusion_matrix, sum_matrices


@st.composite
def answers(draw):
    n_classes = draw(st.integers(1, 6))
    pairs = draw(st.lists(st.tuples(*[st.integers(0, n_classes - 1)] * 2), max_size=60))
    return n_classes, np.array([a for a, _ in pairs], int), np.array([b for _, b in pairs], int)


@settings(max_examples=50, deadline=None)
@given(answers(), st.integers(1, 5))
def test_sum_over_clients_is_the_pooled_matrix(case, clients):
    n_classes, labels, predictions = case
    pooled = confusion_matrix(labels, predictions, n_classes)
    owner = np.arange(labels.size) % clients
    parts = [confusion_matrix(labels[owner == k], predictions[owner == k], n_classes) for k in range(clients)]
    assert (sum_matrices(parts) == pooled).all()
    assert (sum_matrices(parts[::-1]) == pooled).all()
    assert pooled.dtype == np.int64
    assert pooled.shape == (n_classes, n_classes)
    if labels.size:
        assert (pooled == sklearn_confusion(labels, predictions, labels=range(n_classes))).all()


def test_rows_are_true_classes():
    assert confusion_matrix([0, 0, 2], [1, 0, 2], 3).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_small_and_unsigned_dtypes_do_not_overflow(dtype):
    ids = np.array([200, 199, 3], dtype)
    assert confusion_matrix(ids, ids, 201)[200, 200] == 1
    assert sum_matrices([np.full((2, 2), 250, np.uint8)] * 2)[0, 0] == 500


@pytest.mark.parametrize(
    ("labels", "predictions", "words"),
    [
        ([0, 3], [0, 1], r"labels\[1\] is 3"),
        ([0, 1], [-1, 1], r"predictions\[0\] is -1"),
        ([0, 1], [0], "2 labels but 1 predictions"),
        ([0.0, 1.0], [0, 1], "integer"),
        ([[0], [1]], [0, 1], "shape"),
    ],
)
def test_wrong_ids_are_named(labels, predictions, words):
    with pytest.raises(ValueError, match=words):
        confusion_matrix(labels, predictions, 3)


@pytest.mark.parametrize(
    ("matrices", "words"),
    [
        ([], "no confusion matrix"),
        ([np.eye(2, dtype=int), np.eye(3, dtype=int)], "matrix 1 has shape"),
        ([np.eye(2)], "only integer"),
        ([np.array([[1, -1], [0, 1]])], "at least 0"),
        ([np.zeros((2, 3), int)], r"\[C, C\]"),
    ],
)
def test_sums_that_would_lie_are_refused(matrices, words):
    with pytest.raises(ValueError, match=words):
        sum_matrices(matrices)
