"""The accountant of sampled Gaussian noise: published epsilons, its two formulas, and the case without sampling."""

import math

import numpy as np
import pytest

from fedimb.privacy.accountant import ORDERS, _log_integral, _log_sum, epsilon_of_rdp, rdp_of
from fedimb.privacy.gaussian import epsilon_of


def classic(rdp, delta):
    """The conversion the published table was made with (Mironov 2017, proposition 3)."""
    return float(np.min(rdp + math.log(1 / delta) / (np.array(ORDERS) - 1)))


@pytest.mark.parametrize(("noise", "epochs", "epsilon"), [(1.3, 15, 1.19), (1.1, 60, 3.01), (0.7, 45, 7.10)])
def test_the_epsilons_of_tensorflow_privacys_mnist_tutorial(noise, epochs, epsilon):
    # github.com/tensorflow/privacy, tutorials/README.md: 60,000 rows in batches of 256, delta 1e-5
    rdp = rdp_of(256 / 60000, noise) * (epochs * 60000 // 256)
    assert classic(rdp, 1e-5) == pytest.approx(epsilon, abs=0.006)
    assert 0.7 * epsilon < epsilon_of_rdp(rdp, 1e-5) < epsilon


@pytest.mark.parametrize(("q", "noise", "alpha"), [(0.01, 1.0, 2), (0.4, 0.7, 5), (0.9, 3.0, 32), (0.1, 0.5, 3)])
def test_sum_and_integral_agree(q, noise, alpha):
    assert _log_integral(q, noise, float(alpha)) == pytest.approx(_log_sum(q, noise, alpha), rel=1e-9)


def test_without_sampling_it_is_the_gaussian_mechanism():
    np.testing.assert_allclose(rdp_of(1.0, 2.0), np.array(ORDERS) / 8)
    for noise in (0.5, 2.0, 8.0):
        exact, bound = epsilon_of(noise, 1e-5), epsilon_of_rdp(rdp_of(1.0, noise), 1e-5)
        assert exact < bound < 1.25 * exact


def test_fewer_taking_part_tell_less_and_nobody_nothing():
    epsilons = [epsilon_of_rdp(40 * rdp_of(q, 1.0), 1e-5) for q in (0.1, 0.4, 0.99, 1.0)]
    assert epsilons == sorted(epsilons)
    assert epsilons[2] == pytest.approx(epsilons[3], rel=0.03)
    assert not rdp_of(0.0, 1.0).any()


@pytest.mark.parametrize("wrong", [(1.1, 1.0), (-0.1, 1.0), (0.5, 0.0)])
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ValueError, match=r"q in \[0, 1\] and noise > 0"):
        rdp_of(*wrong)
