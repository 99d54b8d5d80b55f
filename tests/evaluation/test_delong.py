"""DeLong's test against the paper's data, its definition, and what must hold for any two models."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.evaluation.delong import delong
from fedimb.evaluation.probabilities import ranking_scores

# Albumin, total protein, K-G score, and who benefited: the 43 complete patients of DeLong et al. (1988), as printed in
# the SAS/STAT User's Guide, PROC LOGISTIC, "Comparing Receiver Operating Characteristic Curves".
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1"""


@pytest.fixture(scope="module")
def ovarian():
    """Who benefited, and the three tests, higher for better prospects."""
    albumin, protein, score, benefited = np.array(OVARIAN.split(), float).reshape(43, 4).T
    return benefited == 1, {"albumin": albumin, "protein": protein, "score": 10 - score}


def by_definition(positive, a, b):
    """(area a, area b, [var a, var b, cov]) over all pairs in fractions: equations 2, 4 and 5 of the paper."""

    def kernel(x, y):
        return Fraction(1) if y < x else Fraction(1, 2) if y == x else Fraction(0)

    sides = [(list(one[positive]), list(one[~positive])) for one in (a, b)]
    m, n = len(sides[0][0]), len(sides[0][1])
    v10 = [[sum(kernel(x, y) for y in ys) / n for x in xs] for xs, ys in sides]
    v01 = [[sum(kernel(x, y) for x in xs) / m for y in ys] for xs, ys in sides]
    areas = [sum(v) / m for v in v10]

    def cov(v, i, j):
        parts = zip(v[i], v[j], strict=True)
        return sum((p - areas[i]) * (q - areas[j]) for p, q in parts) / (len(v[i]) - 1)

    return *areas, [cov(v10, i, j) / m + cov(v01, i, j) / n for i, j in ((0, 0), (1, 1), (0, 1))]


@pytest.mark.parametrize(
    ("first", "area", "error", "difference", "difference_error", "chi_square", "p"),
    [
        ("albumin", 0.7366, 0.0927, 0.0108, 0.0953, 0.0127, 0.9102),
        ("protein", 0.6478, 0.1000, -0.0780, 0.1046, 0.5554, 0.4561),
    ],
)
def test_the_papers_patients(ovarian, first, area, error, difference, difference_error, chi_square, p):
    """Each test against the K-G score (area .7258, standard error .1028), to the four digits SAS prints."""
    benefited, tests = ovarian
    found = delong(benefited, tests[first], tests["score"])
    spread = found.variance_a + found.variance_b - 2 * found.covariance
    assert (found.positives, found.negatives) == (31, 12)
    assert (round(found.auroc_a, 4), round(math.sqrt(found.variance_a), 4)) == (area, error)
    assert (round(found.auroc_b, 4), round(math.sqrt(found.variance_b), 4)) == (0.7258, 0.1028)
    assert (round(found.difference, 4), round(math.sqrt(spread), 4)) == (difference, difference_error)
    assert (round(found.difference**2 / spread, 4), round(found.p, 4)) == (chi_square, p)
    assert found.high - found.difference == pytest.approx(1.959964 * difference_error, abs=2e-4)


def test_the_papers_covariance_by_its_definition(ovarian):
    benefited, tests = ovarian
    area_a, area_b, covariances = by_definition(benefited, tests["albumin"], tests["protein"])
    found = delong(benefited, tests["albumin"], tests["protein"])
    assert (found.auroc_a, found.auroc_b) == pytest.approx((float(area_a), float(area_b)), abs=1e-15)
    assert [found.variance_a, found.variance_b, found.covariance] == pytest.approx(list(map(float, covariances)))


scores = st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=24)


def columns(rows):
    positive, a, b = (np.array(column) for column in zip(*rows, strict=True))
    return positive.astype(bool), a.astype(float), b.astype(float)


@settings(max_examples=30, deadline=None)
@given(scores)
def test_any_scores_with_ties_by_the_definition(rows):
    positive, a, b = columns(rows)
    found = delong(positive, a, b)
    if min(positive.sum(), (~positive).sum()) < 2:
        assert math.isnan(found.p)
        return
    area_a, area_b, covariances = by_definition(positive, a, b)
    assert (found.auroc_a, found.auroc_b) == pytest.approx((float(area_a), float(area_b)), abs=1e-12)
    assert [found.variance_a, found.variance_b, found.covariance] == pytest.approx(
        list(map(float, covariances)), abs=1e-12
    )


@settings(max_examples=30, deadline=None)
@given(scores)
def test_swapped_models_are_mirrored_and_equal_ones_are_not_different(rows):
    positive, a, b = columns(rows)
    found, swapped = delong(positive, a, b), delong(positive, b, a)
    assert swapped.p == pytest.approx(found.p, nan_ok=True)
    assert (swapped.difference, swapped.low, swapped.high) == pytest.approx(
        (-found.difference, -found.high, -found.low), nan_ok=True
    )
    if min(positive.sum(), (~positive).sum()) >= 2:
        same = delong(positive, a, np.exp(a) - 3)  # another scale, the same order
        assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


@settings(max_examples=30, deadline=None)
@given(scores)
def test_a_patient_per_row_changes_nothing(rows):
    positive, a, b = columns(rows)
    found, given_units = delong(positive, a, b), delong(positive, a, b, units=np.arange(len(a))[::-1] * 7)
    assert [*vars(given_units).values()] == pytest.approx([*vars(found).values()], nan_ok=True)


def test_rows_repeated_within_patients_are_no_new_evidence():
    """Every row three times, as one patient each: the variance of the rows once, up to the pairs within a side."""
    rng = np.random.default_rng(0)
    positive = np.arange(60) < 20
    a, b = positive + rng.normal(size=60), positive + rng.normal(size=60)
    once = delong(positive, a, b)
    thrice = [np.repeat(one, 3) for one in (positive, a, b)]
    clustered = delong(*thrice, units=np.repeat(np.arange(60), 3))
    assert clustered.p == pytest.approx(once.p)
    assert clustered.variance_a == pytest.approx(once.variance_a)
    assert delong(*thrice).p < once.p


def test_the_areas_are_those_of_the_result():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 50)
    shares = [rng.dirichlet(np.ones(3), 50).round(2) for _ in range(2)]
    shares = [one / one.sum(1, keepdims=True) for one in shares]
    wanted = [ranking_scores(one, labels)[0] for one in shares]
    for c in range(3):
        found = delong(labels == c, shares[0][:, c], shares[1][:, c])
        assert (found.auroc_a, found.auroc_b) == pytest.approx((wanted[0][c], wanted[1][c]))


def test_what_cannot_be_tested_is_nan_and_never_significant():
    positive = np.array([True] * 5 + [False] * 5)
    perfect, constant = np.arange(10)[::-1].astype(float), np.zeros(10)
    separated = delong(positive, perfect, constant)  # both variances are 0
    assert (separated.difference, separated.variance_a) == (0.5, 0)
    assert math.isnan(separated.p)
    assert math.isnan(delong(positive, perfect, np.full(10, np.nan)).p)
    assert math.isnan(delong(np.zeros(10, bool), perfect, constant).auroc_a)
    with pytest.raises(ValueError, match="one flag and two scores per row"):
        delong(positive, perfect, constant[:9])
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        delong(positive, perfect, constant, level=95)


def test_it_rejects_five_percent_of_equal_models():
    """200 pairs of correlated models with the same true AUROC; 40 rows of the class."""
    rng, false = np.random.default_rng(2), 0
    positive = np.arange(160) < 40
    for _ in range(200):
        shared = positive + rng.normal(size=160)
        false += delong(positive, shared + rng.normal(size=160), shared + rng.normal(size=160)).p <= 0.05
    assert abs(false / 200 - 0.05) <= 4 * math.sqrt(0.05 * 0.95 / 200)
