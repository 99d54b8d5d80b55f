import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from fedimb.evaluation.metrics import (
    SCORES,
    metric_names,
    named_scores,
    per_class_recall,
    recall_keys,
    score_arrays,
    scores,
)


def square(c):
    cells = st.lists(st.integers(0, 9), min_size=c * c, max_size=c * c)
    return cells.map(lambda values: np.array(values, np.int64).reshape(c, c))


matrices = st.integers(2, 6).flatmap(square)


def unroll(matrix):
    true, predicted = np.indices(matrix.shape)
    return np.repeat(true.ravel(), matrix.ravel()), np.repeat(predicted.ravel(), matrix.ravel())


@settings(max_examples=40, deadline=None)
@given(matrices, st.data())
def test_agrees_with_sklearn_over_the_classes_present(matrix, data):
    labels, predictions = unroll(matrix)
    if not labels.size:
        return
    present = np.unique(labels)
    minority = data.draw(st.sets(st.sampled_from(present.tolist()), min_size=1).map(sorted))
    ours = scores(matrix, minority)
    recalls = sklearn_metrics.recall_score(labels, predictions, labels=present, average=None, zero_division=0)
    assert per_class_recall(matrix)[present] == pytest.approx(recalls)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn warns of classes predicted but absent
        balanced = sklearn_metrics.balanced_accuracy_score(labels, predictions)
        f1 = sklearn_metrics.f1_score(labels, predictions, labels=present, average="macro", zero_division=0)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predictions),
        "macro_recall": balanced,
        "minority_recall": recalls[np.isin(present, minority)].mean(),
        "min_class_recall": recalls.min(),
        "g_mean": recalls.prod() ** (1 / recalls.size),
        "macro_f1": f1,
        "defined_classes": present.size,
    }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-12), name
    if present.size > 1 and np.unique(predictions).size > 1:
        assert ours["mcc"] == pytest.approx(sklearn_metrics.matthews_corrcoef(labels, predictions), abs=1e-12)
    else:
        assert math.isnan(ours["mcc"])


@settings(max_examples=40, deadline=None)
@given(matrices, st.randoms(use_true_random=False))
def test_renaming_classes_changes_no_score(matrix, random):
    order = list(range(len(matrix)))
    random.shuffle(order)
    renamed = matrix[np.ix_(order, order)]  # new class i is old class order[i]
    before, after = scores(matrix, [0, 1]), scores(renamed, [order.index(0), order.index(1)])
    assert list(before) == list(SCORES)
    for name in SCORES:
        assert after[name] == pytest.approx(before[name], nan_ok=True, abs=1e-12), name


@settings(max_examples=20, deadline=None)
@given(st.lists(square(3), min_size=1, max_size=4))
def test_a_stack_scores_as_its_matrices_do(stack):
    together = score_arrays(np.stack(stack), [0, 2])
    for at, one in enumerate(stack):
        for name, value in scores(one, [0, 2]).items():
            assert together[name][at] == pytest.approx(value, nan_ok=True)


NAN = math.nan


@pytest.mark.parametrize(
    ("matrix", "minority", "expected"),
    [
        # class 2 absent but predicted: no 0 enters any mean (the example libraries disagree on)
        (
            [[2, 0, 1], [1, 2, 0], [0, 0, 0]],
            [2],
            {"macro_recall": 2 / 3, "minority_recall": NAN, "g_mean": 2 / 3},
        ),
        ([[2, 0, 1], [1, 2, 0], [0, 0, 0]], [1, 2], {"minority_recall": 2 / 3, "defined_classes": 2}),
        ([[2, 0, 1], [1, 2, 0], [0, 0, 0]], [0], {"macro_f1": (2 * 2 / 6 + 2 * 2 / 5) / 2}),
        # one class never found
        ([[4, 0], [3, 0]], [1], {"g_mean": 0.0, "minority_recall": 0.0, "min_class_recall": 0.0, "mcc": NAN}),
        # a single true class
        ([[3, 1], [0, 0]], [], {"mcc": NAN, "macro_recall": 0.75, "minority_recall": NAN, "g_mean": 0.75}),
        # nothing at all
        (
            [[0, 0], [0, 0]],
            [0],
            {name: NAN for name in SCORES if name != "defined_classes"} | {"defined_classes": 0},
        ),
    ],
)
def test_undefined_is_nan_never_zero(matrix, minority, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = scores(matrix, minority)
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, nan_ok=True), name


def test_mcc_of_millions_of_samples_does_not_overflow():
    small = np.array([[5, 1], [2, 4]])
    assert scores(small * 100_000_000, [1])["mcc"] == pytest.approx(scores(small, [1])["mcc"])


@pytest.mark.parametrize(
    ("matrix", "minority", "words"),
    [
        (np.eye(3, dtype=int), [3], "minority class 3"),
        (np.eye(3, dtype=int), [-1], "minority class -1"),
        (np.eye(3, dtype=int), [1, 1], "twice"),
        (np.array([[1.0, math.nan], [0, 1]]), [0], "finite"),
        (np.zeros((2, 3, 3), int), [0], "score_arrays"),
        (np.zeros((0, 0), int), [], "shape"),
    ],
)
def test_what_is_no_matrix_or_class_is_refused(matrix, minority, words):
    with pytest.raises(ValueError, match=words):
        scores(matrix, minority)


def test_names_sort_by_class_and_carry_the_values():
    names = [f"c{i}" for i in range(11)]
    matrix = np.diag(np.arange(1, 12))
    matrix[10, 0] = 11
    logged = named_scores(matrix, [10], names)
    keys = [key for key in logged if "/recall/" in key]
    assert keys == sorted(keys) == [f"test/recall/{i:02d}_c{i}" for i in range(11)]
    assert logged["test/recall/10_c10"] == 0.5 == logged["test/minority_recall"]
    assert list(logged) == metric_names(names)
    assert recall_keys([str(i) for i in range(101)])[100] == "recall/100_100"
    with pytest.raises(ValueError, match="10 class names"):
        named_scores(matrix, [10], names[:10])


def test_any_class_name_gives_a_key_mlflow_accepts():
    validation = pytest.importorskip("mlflow.utils.validation")
    ugly = ["a/b", "..", "", " x ", "p<.05 (%)", "n:1", "Ödem", "x" * 400, "a/b"]
    keys = metric_names(ugly)
    for key in keys:
        validation._validate_metric_name(key)
    assert len(set(keys)) == len(keys)
    assert recall_keys(ugly)[:5] == [
        "recall/00_a_b",
        "recall/01_..",
        "recall/02",
        "recall/03_x",
        "recall/04_p_.05 ___",
    ]
