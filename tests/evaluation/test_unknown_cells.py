"""Scores of rows with several labels, some of them unknown: each class over the rows of which it is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedimb.data.labels import UNKNOWN_CELL
from fedimb.evaluation.events import EventScores
from fedimb.evaluation.multilabel import bootstrap_labels, label_confusion, label_score_arrays
from fedimb.evaluation.paired_recall import recall_tests
from fedimb.evaluation.probabilities import (
    brier,
    classwise_ece,
    log_loss,
    probability_scores,
    ranking_scores,
)
from fedimb.evaluation.thresholds import choose, f1_threshold, recall_threshold
from fedimb.rundir.row_scores import RowScores
from fedimb.serverapp.events import events_of
from fedimb.study.model_pairs import ScoredRow, compare_models

N, C = 200, 4


@pytest.fixture(scope="module")
def drawn():
    """(targets with NaN, probabilities, known)."""
    rng = np.random.default_rng(3)
    truth = (rng.random((N, C)) < [0.5, 0.3, 0.2, 0.1]).astype(float)
    shares = np.clip(0.25 + 0.4 * truth + 0.3 * rng.normal(size=(N, C)), 0.01, 0.99)
    known = rng.random((N, C)) < 0.7
    known[:3] = False
    return np.where(known, truth, np.nan), shares, known


def test_each_class_is_scored_over_its_known_rows(drawn):
    targets, shares, known = drawn
    said = shares > 0.5
    auroc, auprc = ranking_scores(shares, targets)
    gaps, tables = classwise_ece(shares, targets), label_confusion(targets, said)
    for c in range(C):
        own = known[:, c]
        one = targets[own, c : c + 1].astype(int)
        alone = ranking_scores(shares[own, c : c + 1], one)
        np.testing.assert_allclose([auroc[c], auprc[c]], [alone[0][0], alone[1][0]])
        np.testing.assert_allclose(gaps[c], classwise_ece(shares[own, c : c + 1], one)[0])
        np.testing.assert_array_equal(tables[c], label_confusion(one, said[own, c : c + 1])[0])
        assert tables[c].sum() == own.sum()
    cells, truth = shares[known], targets[known]
    np.testing.assert_allclose(brier(shares, targets), ((cells - truth) ** 2).mean())
    by_hand = -(truth * np.log(cells) + (1 - truth) * np.log(1 - cells)).mean()
    np.testing.assert_allclose(log_loss(shares, targets), by_hand)


def test_a_class_of_which_nothing_is_known_has_no_score(drawn):
    targets, shares, _ = drawn
    targets = targets.copy()
    targets[:, 1] = np.nan
    found = probability_scores(shares, targets)
    assert np.isnan(found.auroc[1])
    assert np.isnan(classwise_ece(shares, targets)[1])
    others = np.delete(np.arange(C), 1)
    np.testing.assert_allclose(found.means["auroc"], found.auroc[others].mean())
    np.testing.assert_allclose(found.means["classwise_ece"], classwise_ece(shares, targets)[others].mean())
    nothing = probability_scores(shares, np.full((N, C), np.nan))
    assert all(np.isnan(value) for value in nothing.means.values())


def test_a_wrong_target_is_refused_beside_unknown_ones(drawn):
    targets, shares, _ = drawn
    targets = np.where(np.isnan(targets), UNKNOWN_CELL, targets)
    for score in (brier, log_loss, ranking_scores):
        with pytest.raises(ValueError, match="must be 0 or 1"):
            score(shares, targets)


def test_resampled_tables_leave_unknown_cells_out(drawn):
    """Rows whose cells are all unknown change no interval, and the interval holds the score of the known cells."""
    targets, shares, known = drawn
    said = shares > 0.5
    positive = (targets == 1).any(axis=1)
    strata = np.where(positive, np.nan_to_num(targets).argmax(axis=1), C)
    found = bootstrap_labels(targets, said, strata, [3], 400, np.random.default_rng(0))
    point = label_score_arrays(label_confusion(targets, said), [3])
    for name, (low, high) in found.items():
        assert low <= float(point[name]) <= high, name
    some = known.any(axis=1)
    assert not some.all()
    strata = np.where(some, strata, C + 1)  # drawn last, so that the draws of the others are the same
    whole = bootstrap_labels(targets, said, strata, [3], 50, np.random.default_rng(0))
    less = bootstrap_labels(targets[some], said[some], strata[some], [3], 50, np.random.default_rng(0))
    assert whole == less
    full = np.nan_to_num(targets)
    with_negatives = bootstrap_labels(full, said, strata, [3], 400, np.random.default_rng(0))
    assert with_negatives["macro_precision"] != found["macro_precision"]


def test_a_threshold_is_chosen_and_judged_on_known_rows(drawn):
    targets, shares, known = drawn
    labels = np.where(known, np.nan_to_num(targets), UNKNOWN_CELL).astype(np.uint8)
    for aim in (None, 0.8):
        rule = choose(shares, labels, range(C), aim, "here")
        for c, achieved in enumerate(rule.achieved):
            own = known[:, c]
            score, yes = shares[own, c], targets[own, c] == 1
            wanted = f1_threshold(score, yes) if aim is None else recall_threshold(score, yes, aim)
            assert achieved.value == wanted
            called = score >= wanted
            assert achieved.positives == yes.sum()
            assert achieved.recall == (yes & called).sum() / yes.sum()
            np.testing.assert_allclose(achieved.precision, (yes & called).sum() / called.sum())
    with pytest.raises(ValueError, match="class 0 has no row"):
        choose(shares, np.full((N, C), UNKNOWN_CELL, np.uint8), [0], 0.8, "here")


def test_rows_with_one_known_label_of_several_have_no_accuracy(tmp_path):
    """Each row has one known positive; what else it has is unknown."""
    labels = np.full((6, 2), UNKNOWN_CELL, np.uint8)
    labels[np.arange(6), np.arange(6) % 2] = 1
    logits = np.where(labels == 1, 1, -1).astype(np.float32)
    rows = RowScores(np.arange(6), labels, logits, None, "x", ("a", "b"))
    a, b = (ScoredRow(name, tmp_path, 0, rows, (1,)) for name in ("one", "other"))
    assert compare_models(a, b, resamples=20).recall.overall is None


def test_events_of_a_class_are_of_the_windows_of_which_it_is_known():
    """Windows of ten seconds: b is unknown in the second, where it is predicted, and in the third."""
    labels = np.array([[1, 0], [1, 2], [1, 2], [1, 0], [1, 0], [1, 1]], np.uint8)
    logits = np.array([[5, -5], [5, 5], [5, -5], [5, -5], [5, 5], [5, -5]], np.float32)
    scored = RowScores(np.arange(6), labels, logits, None, "x", ("a", "b"))
    signal = SimpleNamespace(rate_hz=1.0, length=10)
    store = SimpleNamespace(signal=signal, origins=np.arange(6) * 10, recordings=None)
    federation = SimpleNamespace(store=store, n_classes=2, class_names=("a", "b"))
    found = events_of(federation, scored)
    assert found == {"a": EventScores(1, 1, 0, 60 / 3600), "b": EventScores(1, 0, 1, 40 / 3600)}


def test_rows_without_a_known_class_change_no_interval_of_recall(drawn):
    targets, shares, _ = drawn
    yes = targets == 1
    a, b = shares > 0.5, shares > 0.4
    some = yes.any(axis=1)
    assert not some.all()
    with_all = recall_tests(yes, a, b, [3], np.random.default_rng(0), 200)
    without = recall_tests(yes[some], a[some], b[some], [3], np.random.default_rng(0), 200)
    assert [vars(one) for one in with_all.classes] == [vars(one) for one in without.classes]
