import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.training.prior import class_prior, log_prior


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=12).filter(any))
def test_a_prior_is_a_positive_distribution_that_keeps_the_counts_order(counts):
    prior = class_prior(np.array(counts))
    assert prior.sum() == pytest.approx(1)
    assert (prior > 0).all()
    held = np.array(counts) > 0
    assert np.allclose(prior[held] / prior[held].max(), np.array(counts)[held] / max(counts))
    assert (prior[~held] == prior[held].min()).all()


def test_without_absent_classes_it_is_the_share():
    np.testing.assert_allclose(class_prior(np.array([6, 3, 1])), [0.6, 0.3, 0.1])
    np.testing.assert_allclose(class_prior(np.array([6.0, 0.5, 0])), np.array([6, 0.5, 0.5]) / 7)


@pytest.mark.parametrize("counts", [[0, 0], [], [-1, 2], [np.nan, 1], [np.inf, 1]])
def test_what_is_no_count_is_refused(counts):
    with pytest.raises(ValueError, match="finite, not negative and not all zero"):
        class_prior(np.array(counts, dtype=float))


def test_the_log_is_finite_and_float32():
    logs = log_prior(np.array([10**12, 1, 0]))
    assert logs.dtype == torch.float32
    assert torch.isfinite(logs).all()
    assert torch.allclose(logs.exp().double().sum(), torch.ones((), dtype=torch.float64), atol=1e-6)
