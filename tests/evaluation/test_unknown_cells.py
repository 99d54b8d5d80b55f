"""Scores of rows with several labels, some of them unknown: each class over the rows of which it is known."""

import numpy as np
import pytest

from fedimb.data.labels import UNKNOWN_CELL
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


def test_rows_without_a_known_class_change_no_interval_of_recall(drawn):
    targets, shares, _ = drawn
    yes = targets == 1
    a, b = shares > 0.5, shares > 0.4
    some = yes.any(axis=1)
    assert not some.all()
    with_all = recall_tests(yes, a, b, [3], np.random.default_rng(0), 200)
    without = recall_tests(yes[some], a[some], b[some], [3], np.random.default_rng(0), 200)
    assert [vars(one) for one in with_all.classes] == [vars(one) for one in without.classes]
