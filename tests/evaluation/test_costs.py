"""Costs and other prevalences: the paper's two-class formulas, scikit-learn's weights, and the same rows seen again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from fedimb.errors import ConfigError
from fedimb.evaluation.confusion import confusion_matrix
from fedimb.evaluation.costs import (
    check_costs,
    client_accuracies,
    named_costs,
    prior_accuracy,
    total_cost,
    weighted_accuracy,
)
from fedimb.evaluation.metrics import scores

NAN = float("nan")

counts = st.integers(1, 50)


def some(seed, classes=4, n=80):
    """A confusion matrix in which every class has rows, and a cost matrix with a diagonal."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n)])
    costs = rng.random((classes, classes)) * 10
    np.fill_diagonal(costs, costs.min(1) - rng.random(classes))
    return confusion_matrix(labels, rng.integers(0, classes, labels.size), classes), costs


@given(counts, counts, counts, counts, st.floats(0.5, 99), st.floats(0.5, 99), st.floats(-5, 0), st.floats(-5, 0))
def test_two_classes_are_the_papers(tp, fn, tn, fp, c_fn, c_fp, c_tp, c_tn):
    matrix, costs = [[tn, fp], [fn, tp]], [[c_tn, c_fp], [c_fn, c_tp]]
    lost_fn, lost_fp = c_fn - c_tp, c_fp - c_tn
    w = lost_fn / (lost_fn + lost_fp)
    formula = (w * tp + (1 - w) * tn) / (w * (tp + fn) + (1 - w) * (tn + fp))
    found = weighted_accuracy(matrix, costs)
    assert found == pytest.approx(formula)
    rows = tp + fn + tn + fp
    tcc = fn * c_fn + fp * c_fp + tp * c_tp + tn * c_tn
    least, most = (tp + fn) * c_tp + (tn + fp) * c_tn, (tp + fn) * c_fn + (tn + fp) * c_fp
    assert total_cost(matrix, costs, rows=rows) == pytest.approx(tcc, abs=1e-9 * most)
    assert found == pytest.approx(1 - (tcc - least) / (most - least))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 6))
def test_many_classes_keep_the_identity_and_the_unit_does_not_matter(seed, classes):
    matrix, costs = some(seed, classes)
    found = weighted_accuracy(matrix, costs)
    sizes = matrix.sum(1)
    best, worst = np.zeros_like(matrix), np.zeros_like(matrix)
    best[range(classes), range(classes)] = sizes
    worst[range(classes), costs.argmax(1)] = sizes
    actual, least, most = (total_cost(m, costs) for m in (matrix, best, worst))
    assert found == pytest.approx(1 - (actual - least) / (most - least))
    assert 0 <= found <= 1
    assert weighted_accuracy(matrix, 7 * costs + np.arange(classes)[:, None]) == pytest.approx(found)
    assert weighted_accuracy(best, costs) == 1.0
    assert weighted_accuracy(worst, costs) == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999))
def test_known_scores_are_special_cases(seed):
    matrix, _ = some(seed)
    known = scores(matrix, [1])
    uniform = named_costs("uniform", 4, [1])
    assert weighted_accuracy(matrix, uniform) == pytest.approx(known["accuracy"])
    assert total_cost(matrix, uniform, rows=100) == pytest.approx(100 * (1 - known["accuracy"]))
    assert weighted_accuracy(matrix, uniform, np.ones(4)) == pytest.approx(known["macro_recall"])
    assert prior_accuracy(matrix, np.ones(4)) == pytest.approx(known["macro_recall"])
    assert prior_accuracy(matrix, matrix.sum(1)) == pytest.approx(known["accuracy"])
    # w = the negatives' share of all rows makes two classes balanced accuracy.
    two = np.array([[80, 10], [4, 6]])
    balanced = sklearn_metrics.balanced_accuracy_score([0] * 90 + [1] * 10, [0] * 80 + [1] * 10 + [0] * 4 + [1] * 6)
    assert weighted_accuracy(two, [[0, 10], [90, 0]]) == pytest.approx(balanced)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999))
def test_another_prevalence_is_the_same_model_on_other_numbers_of_rows(seed):
    matrix, costs = some(seed)
    times = np.array([1, 5, 2, 30])  # every row of class c seen so many times
    deployed = matrix * times[:, None]
    prevalence = deployed.sum(1)
    assert total_cost(matrix, costs, prevalence) == pytest.approx(total_cost(deployed, costs))
    assert weighted_accuracy(matrix, costs, prevalence) == pytest.approx(weighted_accuracy(deployed, costs))
    assert prior_accuracy(matrix, prevalence / prevalence.sum()) == pytest.approx(
        sklearn_metrics.accuracy_score(*rows_of(deployed))
    )
    weights = times[rows_of(matrix)[0]]
    assert prior_accuracy(matrix, prevalence) == pytest.approx(
        sklearn_metrics.accuracy_score(*rows_of(matrix), sample_weight=weights)
    )


def rows_of(matrix):
    """(labels, predictions) of which this is the confusion matrix."""
    i, j = np.indices(matrix.shape)
    return np.repeat(i.ravel(), matrix.ravel()), np.repeat(j.ravel(), matrix.ravel())


def test_by_hand():
    # 8 of 10 of class 0 found, 2 of 4 of class 1: a miss of class 1 costs 10.
    matrix = [[8, 2], [2, 2]]
    costs = named_costs("minority:10", 2, [1])
    assert costs.tolist() == [[0, 1], [10, 0]]
    assert total_cost(matrix, costs, rows=14) == pytest.approx(22)
    assert total_cost(matrix, costs) == pytest.approx(22_000 / 14)
    assert weighted_accuracy(matrix, costs) == pytest.approx(1 - 22 / (10 + 40))
    # One row in a hundred is of class 1 where it is used: .99 * .2 + .01 * 5.
    assert total_cost(matrix, costs, [0.99, 0.01]) == pytest.approx(248)
    assert total_cost(matrix, costs, [99, 1]) == pytest.approx(248)
    assert weighted_accuracy(matrix, costs, [0.99, 0.01]) == pytest.approx(1 - 0.248 / (0.99 + 0.1))


def test_right_decisions_that_cost_count_in_the_total_and_not_in_the_accuracy():
    matrix = [[8, 2], [2, 2]]
    costs = [[0, 1], [12, 2]]  # treating costs 2, so a miss costs 10 more
    assert total_cost(matrix, costs, rows=14) == pytest.approx(2 + 24 + 4)
    assert weighted_accuracy(matrix, costs) == pytest.approx(weighted_accuracy(matrix, [[0, 1], [10, 0]]))


def test_the_evidence_tables_example_with_an_absent_class():
    matrix = confusion_matrix([0, 0, 0, 1, 1, 1], [0, 0, 2, 1, 1, 0], 3)  # class 2 is predicted, and has no row
    uniform = named_costs("uniform", 3, [])
    assert weighted_accuracy(matrix, uniform) == pytest.approx(2 / 3)
    assert total_cost(matrix, uniform) == pytest.approx(1000 / 3)
    assert prior_accuracy(matrix, [1, 1, 0]) == pytest.approx(2 / 3)  # not the .444 of an absent class counted as 0
    for undefined in (prior_accuracy(matrix, [1, 1, 1]), total_cost(matrix, uniform, [1, 1, 1])):
        assert np.isnan(undefined)
    assert np.isnan(weighted_accuracy(matrix, uniform, [0.5, 0.4, 0.1]))


def test_a_class_of_one_row_and_one_never_predicted():
    matrix = [[9, 0], [1, 0]]
    assert weighted_accuracy(matrix, named_costs("minority:9", 2, [1])) == pytest.approx(0.5)
    assert prior_accuracy(matrix, [0, 1]) == 0.0
    assert prior_accuracy(matrix, [3, 1]) == 0.75


def test_without_rows_everything_is_undefined():
    empty, uniform = np.zeros((2, 2), int), named_costs("uniform", 2, [])
    found = [weighted_accuracy(empty, uniform), total_cost(empty, uniform), prior_accuracy(empty, [1, 1])]
    assert np.isnan([*found, total_cost(empty, uniform, [1, 1])]).all()
    assert np.isnan(client_accuracies(empty, [[1, 0], [0, 0]])).all()


def test_clients_get_the_accuracy_of_their_own_mix():
    matrix = np.array([[9, 1, 0], [5, 5, 0], [0, 0, 0]])  # recall .9, .5, none
    held = [[10, 0, 0], [0, 4, 0], [30, 10, 0], [0, 0, 0], [5, 0, 1]]
    expected = [0.9, 0.5, 0.75 * 0.9 + 0.25 * 0.5, NAN, NAN]  # nothing held; a class without a test row held
    assert client_accuracies(matrix, held) == pytest.approx(expected, nan_ok=True)
    assert client_accuracies(matrix, [[1, 1, 0]]) == pytest.approx([0.7])  # one client
    assert client_accuracies(matrix, np.zeros((0, 3))).shape == (0,)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 8))
def test_clients_weighted_by_their_rows_are_the_accuracy_under_the_training_prior(seed, clients):
    matrix, _ = some(seed)
    held = np.random.default_rng(seed).integers(0, 20, (clients, 4)) + 1
    each = client_accuracies(matrix, held)
    assert np.average(each, weights=held.sum(1)) == pytest.approx(prior_accuracy(matrix, held.sum(0)))
    assert each == pytest.approx([prior_accuracy(matrix, own) for own in held])


def test_named_costs():
    assert named_costs("uniform", 3, [2]).tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert named_costs("minority:2.5", 3, [0, 2]).tolist() == [[0, 2.5, 2.5], [1, 0, 1], [2.5, 2.5, 0]]
    for name in ("minority", "minority:", "minority:x", "minority:0", "minority:-1", "minority:inf", "minority:nan"):
        with pytest.raises(ConfigError, match="as minority:10"):
            named_costs(name, 3, [0])
    with pytest.raises(ConfigError, match="Did you mean 'uniform'"):
        named_costs("unifrom", 3, [0])
    with pytest.raises(ValueError, match="minority class 3 does not exist"):
        named_costs("minority:2", 3, [3])
    with pytest.raises(ValueError, match="at least 2 classes"):
        named_costs("uniform", 1, [])


@pytest.mark.parametrize(
    ("costs", "says"),
    [
        ([[0, 1, 1], [1, 0, 1]], r"must be \[2, 2\]"),
        ([[0, 1], [NAN, 0]], "class 1 predicted as 0 is nan"),
        ([[0, float("inf")], [1, 0]], "class 0 predicted as 1 is inf"),
        ([[0, 1], [1, 2]], r"class 1 predicted as 0 costs 1, less than the correct decision \(2\)"),
        ([[0, 1], [0, 0]], "no mistake about class 1 costs anything"),
        ([[0, 1], [3, 3]], "no mistake about class 1 costs anything"),
    ],
)
def test_bad_costs_are_refused(costs, says):
    for score in (weighted_accuracy, total_cost):
        with pytest.raises(ValueError, match=says):
            score([[1, 0], [0, 1]], costs)
    with pytest.raises(ValueError, match=says):
        check_costs(costs, 2)


@pytest.mark.parametrize("prevalence", [[1, 1, 1], [0, 0], [-1, 2], [NAN, 1], 1.0, [[1, 1]]])
def test_a_bad_prevalence_is_refused(prevalence):
    matrix = [[1, 0], [0, 1]]
    uniform = named_costs("uniform", 2, [])
    for score in (
        lambda: prior_accuracy(matrix, prevalence),
        lambda: total_cost(matrix, uniform, prevalence),
        lambda: weighted_accuracy(matrix, uniform, prevalence),
    ):
        with pytest.raises(ValueError, match="prevalence"):
            score()


def test_other_bad_arguments_are_refused():
    uniform = named_costs("uniform", 2, [])
    with pytest.raises(ValueError, match="several labels"):
        weighted_accuracy(np.ones((3, 2, 2), int), uniform)
    with pytest.raises(ValueError, match="above 0"):
        total_cost([[1, 0], [0, 1]], uniform, rows=0)
    with pytest.raises(ValueError, match=r"\[K, 2\]"):
        client_accuracies([[1, 0], [0, 1]], [1, 1])
