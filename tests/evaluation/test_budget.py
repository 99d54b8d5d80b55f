"""The expected best of k trials, against every subset."""

import itertools

import numpy as np
import pytest

from fedimb.evaluation.budget import expected_best


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_it_is_the_mean_over_all_subsets(n):
    worths = np.random.default_rng(n).normal(size=n)
    by_hand = [np.mean([max(subset) for subset in itertools.combinations(worths, k)]) for k in range(1, n + 1)]
    assert np.allclose(expected_best(worths), by_hand, rtol=0, atol=1e-12)


def test_it_never_falls_and_ends_at_the_best():
    worths = np.random.default_rng(0).normal(size=200)
    curve = expected_best(worths)
    assert (np.diff(curve) >= 0).all()
    assert np.isclose(curve[-1], worths.max())
    assert np.isclose(curve[0], worths.mean())


def test_a_budget_that_may_consist_of_failures_has_no_expected_best():
    assert expected_best([-np.inf, 0.5, 0.7]).tolist() == [-np.inf, pytest.approx((0.5 + 0.7 + 0.7) / 3), 0.7]


@pytest.mark.parametrize("wrong", [[], [float("nan")], [[1.0]]], ids=str)
def test_no_trial_and_no_number_are_refused(wrong):
    with pytest.raises(ValueError, match="at least one trial"):
        expected_best(wrong)
