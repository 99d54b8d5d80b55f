"""Calibration error, ranking, log-loss, Brier: scikit-learn's numbers, and by hand what it does not have."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from fedimb.evaluation.probabilities import (
    PROBABILITY_SCORES,
    brier,
    classwise_ece,
    log_loss,
    probability_scores,
    ranking_scores,
    top_label_ece,
)

NAN = float("nan")


def draw(seed, n=60, classes=4, decimals=9):
    """Probabilities and labels that agree somewhat; few ``decimals`` make ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    shares = np.round(np.exp(logits), decimals) + 1e-3
    return shares / shares.sum(1, keepdims=True), labels


def slow_gap(confidence, hit, bins=15):
    """|B| / n |accuracy - confidence| added bin by bin, bins found by torch as torchmetrics does."""
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    which = (torch.bucketize(torch.tensor(confidence), edges, right=True) - 1).numpy()
    which = np.minimum(which, bins - 1)
    total = 0.0
    for b in np.unique(which):
        inside = which == b
        total += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return total


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 30))
def test_calibration_errors_are_those_of_the_definition(seed, bins):
    shares, labels = draw(seed)
    hit = (shares.argmax(1) == labels).astype(float)
    assert top_label_ece(shares, labels, bins) == pytest.approx(slow_gap(shares.max(1), hit, bins))
    expected = [slow_gap(shares[:, c], (labels == c).astype(float), bins) for c in range(4)]
    assert classwise_ece(shares, labels, bins) == pytest.approx(expected)


def test_calibration_errors_by_hand():
    # Top probabilities .9 .9 (bin 14 of 15) .7 (bin 11), right, wrong, right: (2 |.5 - .9| + |1 - .7|) / 3.
    shares = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
    assert top_label_ece(shares, [0, 1, 1]) == pytest.approx((2 * 0.4 + 0.3) / 3)
    # Class 1: .1 .1 of which one is true, and .7 true: the same gaps, as there are two classes.
    assert classwise_ece(shares, [0, 1, 1]) == pytest.approx([(2 * 0.4 + 0.3) / 3] * 2)
    # One bin: mean confidence against accuracy.
    assert top_label_ece(shares, [0, 1, 1], bins=1) == pytest.approx(abs(2 / 3 - 2.5 / 3))


def test_the_edges_of_the_bins():
    # .4 is an edge of five bins and opens its bin with .5, so that the gaps cancel: |2 - 1.8|, not .6 + .4.
    shares = np.array([[0.4, 0.3, 0.3], [0.5, 0.5, 0.0]])
    low, high = np.array([[0.4, 0.3, 0.3]]), np.array([[0.5, 0.5, 0.0]])
    assert top_label_ece(shares, [0, 1], 5) == pytest.approx(abs(1 - 0.9) / 2)
    assert top_label_ece(low, [0], 5) == pytest.approx(0.6)
    assert top_label_ece(high, [1], 5) == pytest.approx(0.5)  # a tie is a call for class 0
    # A confidence of 1 is in the last bin: with .95 there, one right and one wrong.
    sure = np.array([[1.0, 0.0], [0.95, 0.05]])
    assert top_label_ece(sure, [0, 1], 10) == pytest.approx(abs(1 - 1.95) / 2)


def test_a_class_that_is_never_predicted_shows_in_the_class_wise_error_only():
    # 100 rows, each called class 0 with .9 and right in 90: calibrated on top; class 1 gets no probability at all.
    shares = np.tile([0.9, 0.0, 0.1], (100, 1))
    labels = np.repeat([0, 1], [90, 10])
    assert top_label_ece(shares, labels) == pytest.approx(0.0, abs=1e-12)
    assert classwise_ece(shares, labels) == pytest.approx(
        [0.0, 0.1, 0.1]
    )  # class 2 has no row: all of its .1 is too much


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([0, 1, 9]))
def test_scores_are_scikit_learns_ties_included(seed, decimals):
    shares, labels = draw(seed, decimals=decimals)
    auroc, auprc = ranking_scores(shares, labels)
    one_hot = np.eye(4)[labels]
    for c in np.unique(labels):
        assert auroc[c] == pytest.approx(sklearn_metrics.roc_auc_score(one_hot[:, c], shares[:, c]))
        assert auprc[c] == pytest.approx(sklearn_metrics.average_precision_score(one_hot[:, c], shares[:, c]))
    assert log_loss(shares, labels) == pytest.approx(sklearn_metrics.log_loss(labels, shares, labels=range(4)))
    assert brier(shares, labels) == pytest.approx(((shares - one_hot) ** 2).sum() / len(labels))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999))
def test_scores_of_several_labels_are_those_of_each_label(seed):
    rng = np.random.default_rng(seed)
    shares, targets = np.round(rng.random((50, 3)), 2), rng.random((50, 3)) < (0.5, 0.2, 0.05)
    found = probability_scores(shares, targets)
    assert np.isnan(found.means["ece"])  # no top label
    gaps = [slow_gap(shares[:, c], targets[:, c].astype(float)) for c in range(3)]
    assert classwise_ece(shares, targets) == pytest.approx(gaps)
    assert found.means["classwise_ece"] == pytest.approx(np.mean(gaps))
    squares = [sklearn_metrics.mean_squared_error(targets[:, c], shares[:, c]) for c in range(3)]
    assert found.means["brier"] == pytest.approx(np.mean(squares))
    losses = [sklearn_metrics.log_loss(targets[:, c], shares[:, c], labels=[0, 1]) for c in range(3)]
    assert found.means["log_loss"] == pytest.approx(np.mean(losses))
    for c in range(3):
        if targets[:, c].any():
            assert found.auroc[c] == pytest.approx(sklearn_metrics.roc_auc_score(targets[:, c], shares[:, c]))
            assert found.auprc[c] == pytest.approx(sklearn_metrics.average_precision_score(targets[:, c], shares[:, c]))
        else:
            assert np.isnan([found.auroc[c], found.auprc[c]]).all()


def test_perfect_and_chance_predictions():
    labels = np.repeat(np.arange(4), [50, 30, 15, 5])
    means = probability_scores(np.eye(4)[labels], labels).means
    assert list(means) == list(PROBABILITY_SCORES)
    best = {"ece": 0, "classwise_ece": 0, "log_loss": 0, "brier": 0, "auroc": 1, "auprc": 1}
    assert means == pytest.approx(best, abs=1e-12)
    prevalence = np.array([0.5, 0.3, 0.15, 0.05])
    guess = probability_scores(np.tile(prevalence, (100, 1)), labels)
    assert guess.auroc == pytest.approx([0.5] * 4)
    assert guess.auprc == pytest.approx(prevalence)  # its base rate
    assert guess.means["ece"] == pytest.approx(0.0, abs=1e-12)
    assert guess.means["classwise_ece"] == pytest.approx(0.0, abs=1e-12)
    assert guess.means["log_loss"] == pytest.approx(-(prevalence * np.log(prevalence)).sum())
    uniform = probability_scores(np.full((100, 4), 0.25), labels).means
    assert uniform["log_loss"] == pytest.approx(np.log(4))
    assert uniform["brier"] == pytest.approx(0.75**2 + 3 * 0.25**2)


def test_an_absent_class_and_one_of_a_single_row():
    shares = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.5, 0.1, 0.4]])
    found = probability_scores(shares, [0, 1, 0, 0])
    assert found.auroc == pytest.approx([1.0, 1.0, NAN], nan_ok=True)  # class 2 has no row
    assert found.means["auroc"] == found.means["auprc"] == 1.0  # over the two that are defined
    # The one row of class 1 comes second of four: two of three others below it, precision 1/2.
    second = probability_scores(shares, [0, 0, 1, 0])
    assert (second.auroc[1], second.auprc[1]) == pytest.approx((2 / 3, 1 / 2))
    only = probability_scores(shares, [0, 0, 0, 0])
    assert np.isnan(only.auroc).all()  # no row of another class either
    assert np.isnan(only.means["auprc"])
    assert only.means["log_loss"] == pytest.approx(-np.log([0.7, 0.2, 0.6, 0.5]).mean())


def test_sure_and_wrong_is_clipped_and_not_infinite():
    assert log_loss([[1.0, 0.0]], [1]) == pytest.approx(-np.log(np.finfo(float).eps))
    assert log_loss([[1.0, 0.0]], [[0, 1]]) == pytest.approx(-np.log(np.finfo(float).eps), rel=1e-3)
    assert brier([[1.0, 0.0]], [1]) == 2.0


@pytest.mark.parametrize("labels", [np.zeros(0, int), np.zeros((0, 3), int)])
def test_without_rows_everything_is_undefined(labels):
    found = probability_scores(np.zeros((0, 3)), labels)
    assert np.isnan([*found.means.values(), *found.auroc, *found.auprc]).all()
    assert found.auroc.shape == (3,)


@pytest.mark.parametrize("labels", [[0, 1], [[1, 0], [0, 1]]])
def test_probabilities_of_a_diverged_model_score_nothing(labels):
    found = probability_scores([[0.5, 0.5], [NAN, NAN]], labels)
    assert np.isnan([*found.means.values(), *found.auroc, *found.auprc]).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 6))
def test_bounds_and_the_order_of_rows(seed, classes):
    shares, labels = draw(seed, n=30, classes=classes, decimals=1)
    found = probability_scores(shares, labels)
    order = np.random.default_rng(seed).permutation(30)
    again = probability_scores(shares[order], labels[order])
    assert found.means == pytest.approx(again.means, nan_ok=True)
    assert 0 <= found.means["classwise_ece"] <= 2 / classes + 1e-12  # a row's errors add up to 2 at most
    assert 0 <= found.means["ece"] <= 1
    assert 0 <= found.means["brier"] <= 2
    # Ranks, not values: any growing function of the scores keeps them.
    squashed = ranking_scores(shares**3, np.eye(classes, dtype=int)[labels])
    assert squashed[0] == pytest.approx(found.auroc, nan_ok=True)


@pytest.mark.parametrize(
    ("shares", "labels", "says"),
    [
        ([0.5, 0.5], [0], r"shape \[n, C\]"),
        ([[0.5, 0.5]], [0, 1], "1 integer class ids"),
        ([[0.5, 0.5]], [0.5], "integer class ids"),
        ([[0.5, 0.5]], [2], "0 to 1"),
        ([[0.5, 0.5]], [-1], "0 to 1"),
        ([[0.5, 0.5]], [[0, 1, 0]], "must be 0 or 1"),
        ([[0.5, 0.5]], [[0, 2]], "must be 0 or 1"),
        ([[2.0, -1.0]], [0], "softmax"),
        ([[0.4, 0.4]], [0], "softmax"),
        ([[1.2, 0.4]], [[1, 0]], "sigmoid"),
    ],
)
def test_what_is_no_probability_is_refused(shares, labels, says):
    with pytest.raises(ValueError, match=says):
        probability_scores(shares, labels)


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        top_label_ece([[0.5, 0.5]], [0], bins=0)
