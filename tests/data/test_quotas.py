import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedimb.data.quotas import deal_units, dirichlet_shares, largest_remainder


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=40).filter(lambda v: sum(v) > 1e-3),
    st.integers(0, 10**7),
)
def test_quotas_sum_and_stay_within_one(weights, total):
    shares = np.array(weights) / np.sum(weights)
    quotas = largest_remainder(shares, total)
    assert quotas.sum() == total
    assert (quotas >= 0).all()
    assert (np.abs(quotas - shares * total) < 1 + 1e-6).all()


def test_ties_go_to_the_lower_client():
    assert largest_remainder(np.full(4, 0.25), 6).tolist() == [2, 2, 1, 1]
    assert largest_remainder(np.array([0.1, 0.45, 0.45]), 2).tolist() == [0, 1, 1]
    # A floor cut would give [3, 3, 4]: the remainder to the last.
    assert largest_remainder(np.full(3, 1 / 3), 10).tolist() == [4, 3, 3]


@pytest.mark.parametrize("shares", [[np.nan, 1], [-0.5, 1.5], [0.2, 0.2], []])
def test_what_is_no_share_vector_is_refused(shares):
    with pytest.raises(ValueError, match="no quotas"):
        largest_remainder(np.array(shares), 3)


@given(st.sampled_from([1e-6, 1e-3, 0.1, 0.5, 1, 100, 1e6]), st.integers(1, 200), st.integers(0, 2**32))
def test_shares_are_valid_at_any_alpha(alpha, size, seed):
    shares = dirichlet_shares(alpha, size, np.random.default_rng(seed))
    assert np.isfinite(shares).all()
    assert (shares >= 0).all()
    assert abs(shares.sum() - 1) < 1e-9


@pytest.mark.parametrize("alpha", [0.1, 0.5, 3.0])
def test_shares_have_the_dirichlets_mean_and_variance(alpha):
    size, draws = 5, 8_000
    rng = np.random.default_rng(0)
    shares = np.stack([dirichlet_shares(alpha, size, rng) for _ in range(draws)])
    variance = (1 / size) * (1 - 1 / size) / (size * alpha + 1)
    assert np.allclose(shares.mean(axis=0), 1 / size, atol=5 * np.sqrt(variance / draws))
    assert np.allclose(shares.var(axis=0), variance, rtol=0.1)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_single_rows_are_dealt_by_exact_quota(quotas):
    clients = deal_units(np.ones(sum(quotas), dtype=np.int64), np.array(quotas))
    assert np.bincount(clients, minlength=len(quotas)).tolist() == quotas


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 8))
def test_heavier_units_land_within_half_a_unit_of_the_quota_line(weights, n):
    weights = np.array(weights)
    quotas = largest_remainder(np.full(n, 1 / n), int(weights.sum()))
    dealt = np.bincount(deal_units(weights, quotas), weights=weights, minlength=n)
    assert (np.abs(np.cumsum(dealt) - np.cumsum(quotas)) <= weights.max() / 2).all()
