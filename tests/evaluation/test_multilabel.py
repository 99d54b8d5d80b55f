"""Scores of several labels per row: scikit-learn's, by hand where something is undefined, and added over parts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from fedimb.evaluation.confusion import confusion_matrix, confusion_of, hits_and_support
from fedimb.evaluation.metrics import metric_names, named_scores, scores
from fedimb.evaluation.multilabel import LABEL_SCORES, bootstrap_labels, label_confusion, label_score_arrays

NAN = float("nan")


def draw(seed, n=40, classes=4, rate=0.4):
    rng = np.random.default_rng(seed)
    targets = rng.random((n, classes)) < rate
    return targets, targets ^ (rng.random((n, classes)) < 0.3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(0, 40))
def test_tables_add_over_any_cut_and_are_scikit_learns(seed, cut):
    targets, said = draw(seed)
    tables = label_confusion(targets, said)
    assert tables.dtype == np.int64
    assert np.array_equal(tables, sklearn_metrics.multilabel_confusion_matrix(targets, said))
    assert np.array_equal(
        tables, label_confusion(targets[:cut], said[:cut]) + label_confusion(targets[cut:], said[cut:])
    )
    assert (tables.sum(axis=(1, 2)) == 40).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999))
def test_scores_are_scikit_learns(seed):
    targets, said = draw(seed)
    found = scores(label_confusion(targets, said), [1, 3])
    recall = sklearn_metrics.recall_score(targets, said, average=None)
    specificity = sklearn_metrics.recall_score(~targets, ~said, average=None)
    assert list(found) == list(LABEL_SCORES)
    expected = {
        "macro_recall": recall.mean(),
        "minority_recall": recall[[1, 3]].mean(),
        "min_class_recall": recall.min(),
        "g_mean": np.sqrt(recall * specificity).mean(),
        "macro_f1": sklearn_metrics.f1_score(targets, said, average="macro"),
        "macro_precision": sklearn_metrics.precision_score(targets, said, average="macro"),
        "macro_specificity": specificity.mean(),
        "defined_classes": 4,
        "predicted_classes": 4,
    }
    assert found == pytest.approx(expected)


def test_what_is_undefined_is_left_out_and_counted():
    # class 0: nobody has it, predicted once; class 1: never predicted; class 2: every row has it, 1 of 2 found
    tables = label_confusion([[0, 1, 1], [0, 0, 1]], [[1, 0, 1], [0, 0, 0]])
    found = scores(tables, [0])
    expected = {
        "macro_recall": 0.25,
        "minority_recall": NAN,
        "min_class_recall": 0.0,
        "g_mean": 0.25,  # class 1: 0; class 2 has no row to refuse: its recall
        "macro_f1": (0 + 2 / 3) / 2,
        "macro_precision": (0 + 1) / 2,
        "macro_specificity": (0.5 + 1) / 2,
        "defined_classes": 2,
        "predicted_classes": 2,
    }
    assert found == pytest.approx(expected, nan_ok=True)
    empty = scores(np.zeros((3, 2, 2), np.int64), [0, 1])
    assert {name for name, value in empty.items() if value == value} == {"defined_classes", "predicted_classes"}


def test_named_scores_have_every_recall_and_nothing_that_needs_a_matrix_of_classes():
    tables = label_confusion(*draw(0))
    names = ["mass", "nodule", "a/b", "none"]
    logged = named_scores(tables, [0], names, prefix="client")
    assert list(logged) == metric_names(names, "client", "multilabel")
    assert not {"client/accuracy", "client/mcc"} & set(logged)
    hits, support = hits_and_support(tables)
    assert logged["client/recall/00_mass"] == hits[0] / support[0]
    with pytest.raises(ValueError, match="3 class names"):
        named_scores(tables, [0], names[:3])


def test_a_class_is_predicted_above_one_half():
    logits = torch.tensor([[0.0, 1e-6, -3.0], [2.0, -1e-6, 3.0]])
    tables = confusion_of(torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), logits)
    assert tables.tolist() == [[[0, 0], [1, 1]], [[1, 0], [0, 1]], [[1, 1], [0, 0]]]
    labels = torch.tensor([2, 2])
    assert np.array_equal(confusion_of(labels, logits), confusion_matrix([2, 2], [1, 2], 3))
    hits, support = hits_and_support(confusion_of(labels, logits))
    assert (hits.tolist(), support.tolist()) == ([0, 0, 1], [0, 0, 2])
    assert confusion_of(torch.zeros(0, 3), torch.zeros(0, 3)).tolist() == np.zeros((3, 2, 2)).tolist()


@pytest.mark.parametrize(
    ("targets", "said", "says"),
    [
        ([[0, 1]], [[0, 1], [1, 1]], "must both be"),
        ([0, 1], [0, 1], "must both be"),
        ([[0, 1]], [[0, 0.7]], "must be 0 or 1"),
        ([[0, 2]], [[0, 1]], "must be 0 or 1"),
    ],
)
def test_bad_targets_are_refused(targets, said, says):
    with pytest.raises(ValueError, match=says):
        label_confusion(targets, said)


@pytest.mark.parametrize(
    ("tables", "minority", "says"),
    [
        (np.zeros((2, 3, 2), np.int64), [], "shape"),
        (np.full((2, 2, 2), -1), [], "at least 0"),
        (np.zeros((2, 2, 2)), [], "integers"),
        (np.zeros((2, 2, 2), np.int64), [2], "minority class 2 does not exist"),
        (np.zeros((2, 2, 2), np.int64), [1, 1], "twice"),
    ],
)
def test_bad_tables_are_refused(tables, minority, says):
    with pytest.raises(ValueError, match=says):
        label_score_arrays(tables, minority)


def test_the_bootstrap_draws_whole_rows_within_their_strata():
    targets, said = draw(1, n=60)
    strata = targets.argmax(axis=1)
    point = scores(label_confusion(targets, said), [0])
    bounds = bootstrap_labels(targets, said, strata, [0], 400, np.random.default_rng(0))
    again = bootstrap_labels(targets, said, strata, [0], 400, np.random.default_rng(0))
    assert bounds == again
    for name in ("macro_recall", "minority_recall", "g_mean", "macro_f1"):
        low, high = bounds[name]
        assert low < point[name] < high
        assert high - low < 0.4
    # Two classes that are always found or missed together: drawn row by row, their mean spreads as one of them does.
    both = np.repeat(targets[:, :1], 2, axis=1), np.repeat(said[:, :1], 2, axis=1)
    alone = targets[:, :1], said[:, :1]
    flat = np.zeros(60, int)
    wide, single = (
        bootstrap_labels(*part, flat, [], 400, np.random.default_rng(2))["macro_recall"] for part in (both, alone)
    )
    assert wide == pytest.approx(single)


def test_the_bootstrap_in_chunks_and_of_undefined_scores(monkeypatch):
    monkeypatch.setattr("fedimb.evaluation.multilabel._CHUNK_CELLS", 50)
    targets = np.array([[1, 0], [1, 0], [1, 0]])
    bounds = bootstrap_labels(targets, targets, [0, 0, 0], [1], 40, np.random.default_rng(0))
    assert bounds["macro_recall"] == (1.0, 1.0)
    assert np.isnan(bounds["minority_recall"]).all()
    with pytest.raises(ValueError, match="at least 1 resample"):
        bootstrap_labels(targets, targets, [0, 0, 0], [], 0, np.random.default_rng(0))


def test_an_unknown_label_is_no_row_of_its_classs_table():
    nan = float("nan")
    targets = np.array([[1, nan], [0, 1], [nan, nan], [1, 0]])
    said = np.array([[1, 1], [1, 1], [0, 1], [0, 0]])
    tables = label_confusion(targets, said)
    assert tables.tolist() == [[[0, 1], [1, 1]], [[1, 0], [0, 1]]]
    assert tables.sum(axis=(1, 2)).tolist() == [3, 2]
    with pytest.raises(ValueError, match="must be 0 or 1"):
        label_confusion(np.array([[0.0, 2.0]]), np.array([[0, 1]]))
    with pytest.raises(ValueError, match="must be 0 or 1"):
        label_confusion(np.array([[0.0, 1.0]]), np.array([[0.0, nan]]))
