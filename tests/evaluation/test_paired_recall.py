"""McNemar's test and the paired bootstrap against worked examples, and what must hold for any two models."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as of_statsmodels

from fedimb.evaluation.paired_recall import mcnemar, recall_tests

# Approval of a prime minister by 1,600 people, twice: (both, first only, second only, neither). Agresti, Categorical
# Data Analysis (1990, p. 350; 2nd edition 2002, section 10.1); also the example of R's mcnemar.test.
APPROVAL = (794, 150, 86, 570)


def one_class(both, only_a, only_b, neither):
    """Rows of one class, and which of them each model finds, [n, 1] each."""
    a, b = (np.repeat(found, (both, only_a, only_b, neither))[:, None] for found in ([1, 1, 0, 0], [1, 0, 1, 0]))
    return np.ones_like(a, bool), a.astype(bool), b.astype(bool)


def compared(targets, a, b, minority=(), units=None, resamples=200):
    """`recall_tests` from one seed."""
    return recall_tests(targets, a, b, minority, np.random.default_rng(0), resamples, units)


def rows_of(labels, a, b, classes=3):
    """Targets and results [n, C] of rows with one label each."""
    true = np.eye(classes, dtype=bool)[np.asarray(labels)]
    return true, true & np.asarray(a, bool)[:, None], true & np.asarray(b, bool)[:, None]


def test_agrestis_example():
    """Approval falls from .59 to .55: z^2 = 64^2 / 236 = 17.36, p .00003; 95 % interval .04 +- 1.96 (.0095)."""
    p, mid_p = mcnemar(*APPROVAL[1:3])
    table = [[794, 150], [86, 570]]
    assert of_statsmodels(table, exact=False, correction=False).statistic == pytest.approx(17.356, abs=5e-4)
    assert p == pytest.approx(of_statsmodels(table, exact=True).pvalue)
    uncorrected, corrected = 3.099e-05, 4.115e-05  # as R prints them
    assert uncorrected < p < corrected
    assert mid_p == pytest.approx(uncorrected, rel=0.1)
    found = compared(*one_class(*APPROVAL), resamples=4000).classes[0]
    assert (round(found.recall_a, 2), round(found.recall_b, 2), round(found.difference, 2)) == (0.59, 0.55, 0.04)
    assert (found.low, found.high) == pytest.approx((0.04 - 1.96 * 0.0095, 0.04 + 1.96 * 0.0095), abs=0.0015)
    assert (found.only_a, found.only_b, found.rows) == (150, 86, 1600)
    assert found.p == pytest.approx(p)


def test_fagerlands_example():
    """Airway hyper-responsiveness of 21 children before and after a transplantation (Bentur et al. 2009), table 1 of
    Fagerland et al. (2013): 1 and 7 discordant pairs, exact p 18 / 256 and mid-p 10 / 256."""
    assert mcnemar(1, 7) == pytest.approx((18 / 256, 10 / 256))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_statsmodels(only_a, only_b):
    p, mid_p = mcnemar(only_a, only_b)
    assert p == pytest.approx(of_statsmodels([[0, only_a], [only_b, 0]], exact=True).pvalue)
    assert mid_p <= p
    assert mcnemar(only_b, only_a) == (p, mid_p)


models = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 9)), min_size=1, max_size=30
)


@settings(max_examples=30, deadline=None)
@given(models)
def test_swapped_models_are_mirrored(rows):
    labels, a, b, patients = zip(*rows, strict=True)
    true, right_a, right_b = rows_of(labels, a, b)
    for units in (None, patients):
        found, swapped = (compared(true, *pair, [2], units) for pair in ((right_a, right_b), (right_b, right_a)))
        ours = [*found.classes, found.macro, found.minority, found.overall]
        theirs = [*swapped.classes, swapped.macro, swapped.minority, swapped.overall]
        for one, other in zip(ours, theirs, strict=True):
            assert other.p == pytest.approx(one.p, nan_ok=True)
            assert (other.difference, other.low, other.high) == pytest.approx(
                (-one.difference, -one.high, -one.low), nan_ok=True
            )
            assert (other.only_a, other.recall_a) == pytest.approx((one.only_b, one.recall_b), nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(models)
def test_a_model_does_not_differ_from_itself(rows):
    labels, a, _, patients = zip(*rows, strict=True)
    true, right, _ = rows_of(labels, a, a)
    for units in (None, patients):
        found = compared(true, right, right, [0, 1], units, resamples=20)
        for one in (*found.classes, found.macro, found.minority, found.overall):
            assert math.isnan(one.p) if not one.rows else (one.difference, one.low, one.high, one.p) == (0, 0, 0, 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans()), min_size=1, max_size=9))
def test_the_mean_over_classes_is_tested_by_exchanging_rows(rows):
    """All 2^n ways to exchange the two models on single rows, listed."""
    labels, a, b = (np.array(column) for column in zip(*rows, strict=True))
    counts = np.bincount(labels, minlength=3)
    weights = 1 / (np.count_nonzero(counts) * counts[labels])
    values = weights * (a.astype(float) - b)
    signs = np.array(list(itertools.product([1, -1], repeat=len(values))))
    wanted = (np.abs(signs @ values) >= abs(values.sum()) - 1e-9).mean()
    assert compared(*rows_of(labels, a, b)).macro.p == pytest.approx(wanted)


def test_a_null_distribution_too_large_to_list_is_drawn():
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(9), rng.permutation(np.arange(101, 1000, 100)))
    a, b = rng.random(len(labels)) < 0.8, rng.random(len(labels)) < 0.77
    found = compared(*rows_of(labels, a, b, 9)).macro
    true, right_a, right_b = rows_of(labels, a, b, 9)
    counts = true.sum(0)
    values = ((right_a.astype(int) - right_b) / (9 * counts)).sum(1)
    z = values.sum() / math.sqrt((values**2).sum())
    assert found.p == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), abs=0.01)
    assert 0 < found.mid_p < found.p


def test_the_interval_of_a_mean_over_classes_is_the_analytic_one():
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], [400, 200, 100])
    a, b = rng.random(700) < 0.7, rng.random(700) < 0.6
    found = compared(*rows_of(labels, a, b), [2], resamples=4000).macro
    gap = a.astype(float) - b
    error = math.sqrt(sum(gap[labels == c].var() / (labels == c).sum() for c in range(3))) / 3
    assert (found.low, found.high) == pytest.approx(
        (found.difference - 1.96 * error, found.difference + 1.96 * error), abs=0.1 * error
    )


def test_a_rare_class_cannot_be_significant_on_five_rows():
    """5 of 5 rows found by A alone: the bootstrap's interval has no width, and the exact test says .0625."""
    found = compared(*one_class(0, 5, 0, 0), [0])
    assert (found.minority.low, found.minority.high) == (1, 1)
    assert found.minority.smallest_p == 0.0625
    assert [one.p for one in (found.minority, found.macro, found.classes[0])] == pytest.approx([0.0625] * 3)


def test_rows_of_one_patient_are_one_piece_of_evidence():
    true, a, b = one_class(0, 12, 0, 3)
    alone = compared(true, a, b).classes[0]
    patients = np.r_[np.repeat([0, 1, 2], 4), 3, 4, 5]
    together = compared(true, a, b, units=patients).classes[0]
    assert alone.p == pytest.approx(2 / 2**12)
    assert together.p == pytest.approx(together.smallest_p) == 2 / 2**3
    assert (together.recall_a, together.only_a) == (alone.recall_a, alone.only_a)
    assert together.high - together.low > alone.high - alone.low


def test_several_labels_per_row_have_no_accuracy():
    targets = np.array([[1, 1], [1, 0], [0, 1], [1, 1]], bool)
    found = compared(targets, targets, np.zeros_like(targets), [1])
    assert found.overall is None
    assert [one.rows for one in found.classes] == [3, 3]
    assert found.macro.p == pytest.approx(2 / 2**4)  # four rows, not six labels
    assert found.macro.difference == found.minority.difference == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minority": [3]}, "minority class 3 does not exist"),
        ({"right_b": np.ones((4, 2), bool)}, r"must all be \[n, C\]"),
        ({"resamples": 0}, "resamples must be at least 1"),
        ({"level": 95}, "level must be between 0 and 1"),
        ({"units": [1, 2]}, "one integer per row"),
    ],
)
def test_refusals(change, message):
    true = np.eye(3, dtype=bool)
    words = {"targets": true, "right_a": true, "right_b": true, "minority": [0], "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match=message):
        recall_tests(**(words | change))


def test_negative_counts():
    with pytest.raises(ValueError, match="at least 0"):
        mcnemar(-1, 3)
