"""The analytic Gaussian mechanism: as much noise as the promise takes, and no more."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.privacy.gaussian import delta_of, epsilon_of, sigma_of


def test_the_analytic_calibration_agrees_with_an_integral_of_its_definition():
    x = np.linspace(-60, 60, 400001)
    for epsilon, delta in [(0.5, 1e-3), (1.0, 1e-5), (4.0, 1e-6)]:
        sigma = sigma_of(epsilon, delta)
        p, q = (np.exp(-((x - m) ** 2) / 2 / sigma**2) / sigma / math.sqrt(2 * math.pi) for m in (1.0, 0.0))
        assert np.maximum(p - math.exp(epsilon) * q, 0).sum() * (x[1] - x[0]) == pytest.approx(delta, rel=1e-3)
    assert sigma_of(1.0, 1e-5) == pytest.approx(3.7304, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 50), st.floats(1e-9, 0.5), st.floats(0.5, 20))
def test_sigma_is_the_least_that_keeps_delta_and_grows_with_the_sensitivity(epsilon, delta, sensitivity):
    sigma = sigma_of(epsilon, delta, sensitivity)
    assert delta_of(sigma, epsilon, sensitivity) <= delta * (1 + 1e-6)
    assert delta_of(0.99 * sigma, epsilon, sensitivity) > delta
    assert sigma == pytest.approx(sensitivity * sigma_of(epsilon, delta))
    if epsilon < 1:
        assert sigma < math.sqrt(2 * math.log(1.25 / delta)) * sensitivity / epsilon


@pytest.mark.parametrize("wrong", [(0.0, 0.1), (1.0, 0.0), (1.0, 1.0), (101.0, 0.1), (1.0, 0.1, 0.0)])
def test_no_noise_is_enough_for_an_impossible_promise(wrong):
    with pytest.raises(ValueError, match="differential privacy needs"):
        sigma_of(*wrong)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 50), st.floats(1e-9, 0.5), st.floats(0.5, 20))
def test_epsilon_is_the_one_that_noise_was_made_for(epsilon, delta, sensitivity):
    assert epsilon_of(sigma_of(epsilon, delta, sensitivity), delta, sensitivity) == pytest.approx(epsilon, rel=1e-6)


def test_epsilon_of_hardly_any_noise_and_of_much():
    # Far out exp(epsilon) is no number any more; the tail bound of the privacy loss N(mu^2 / 2, mu^2) is close.
    mu = 100.0
    assert epsilon_of(1 / mu, 1e-5) == pytest.approx(mu**2 / 2 + mu * 4.2649, rel=1e-3)
    assert epsilon_of(1e6, 1e-5) == 0.0
    with pytest.raises(ValueError, match="delta must lie"):
        epsilon_of(1.0, 0.0)
