import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from fedimb.privacy.audit.copies import (
    Neighbours,
    closeness,
    exceedance_probability,
    near_copies,
    nearest_excess,
    nearest_p,
    nearest_ratio,
    random_deals,
)


def neighbours(seed, samples=60, train=30, holdout=30, copies=0):
    rng = np.random.default_rng(seed)
    s, t, h = (rng.normal(size=(n, 4)) for n in (samples, train, holdout))
    s[:copies] = t[rng.integers(train, size=copies)] + 0.01
    return Neighbours.of(s, t, h, rng), (s, t, h), rng


def test_neighbours_are_sorted_and_the_ratio_counts_them():
    found, (s, t, h), rng = neighbours(0)
    apart = cdist(s, np.concatenate([t, h]))
    assert (found.order == apart.argsort(1)).all()
    share = (cdist(s, t).min(1) < cdist(s, h).min(1)).mean()
    ratio, low, high = nearest_ratio(found, 200, rng)
    assert ratio == pytest.approx(share)
    assert low <= 0.5 <= high
    assert nearest_excess(found) == pytest.approx((share - 0.5) / 0.5)


def test_of_many_records_only_the_nearest_are_kept():
    found, (s, t, h), _ = neighbours(1, samples=5, train=400, holdout=300)
    assert found.order.shape == (5, 512)
    assert (found.order[:, :9] == cdist(s, np.concatenate([t, h])).argsort(1)[:, :9]).all()


def test_an_equal_size_holdout_is_drawn_from_a_larger_one():
    ratios = [nearest_ratio(neighbours(seed, 200, 10, 200)[0], 50, np.random.default_rng(0))[0] for seed in range(20)]
    assert np.mean(ratios) == pytest.approx(0.5, abs=0.06)  # all holdout records together would give 10 / 210
    found, _, rng = neighbours(3, 200, 10, 200, copies=100)
    assert nearest_ratio(found, 50, rng)[0] == pytest.approx(0.75, abs=0.06)
    assert nearest_excess(found) == pytest.approx(0.5, abs=0.05)


def test_p_of_the_nearest_record_is_uniform_without_leakage_and_small_with():
    rng = np.random.default_rng(4)
    deals = random_deals(30, 30, rng)
    assert (deals.sum(1) == 30).all()
    assert deals.mean(0) == pytest.approx(0.5, abs=0.06)
    chances = np.array([nearest_p(neighbours(seed)[0], deals) for seed in range(200)])
    assert (chances <= 0.05).mean() <= 0.10  # 95 % bound of 200 draws at .05: .08
    assert (chances <= 0.5).mean() == pytest.approx(0.5, abs=0.13)
    assert nearest_p(neighbours(5, copies=30)[0], deals) < 0.01
    tied = Neighbours.of(np.zeros((100, 2)), np.zeros((30, 2)), np.zeros((30, 2)), rng)
    assert set(tied.order[0]) == set(range(60))  # equal records: train comes first by chance only
    assert tied.order[0, :30].max() >= 30
    # samples that all copy one record: whether it is one of train is a coin
    found, _, _ = neighbours(6, copies=0)
    one = Neighbours(np.zeros_like(found.order), 30, 30)
    assert nearest_p(one, deals) == pytest.approx(0.5, abs=0.05)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_exceeding_is_the_share_of_all_orders(samples, controls, data):
    rank, below = data.draw(st.integers(1, controls)), data.draw(st.integers(0, samples))
    rng = np.random.default_rng(7)
    values = rng.random((20_000, samples + controls))
    threshold = np.sort(values[:, :controls], 1)[:, rank - 1]
    share = ((values[:, controls:] < threshold[:, None]).sum(1) >= below).mean()
    assert exceedance_probability(below, samples, rank, controls) == pytest.approx(share, abs=0.016)


def test_closeness_and_near_copies():
    ratio = closeness(np.array([0.0, 0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0, 4.0]))
    assert ratio == pytest.approx([1, 0, np.inf, 0.5])
    controls = np.linspace(0.5, 2, 100)
    near, p = near_copies(np.concatenate([np.full(10, 0.1), np.linspace(0.6, 2, 90)]), controls)
    assert near.sum() == 10
    # the chance that a tenth of all lies below the smallest of 100 is about (1 - .1)^100
    assert p == pytest.approx(exceedance_probability(10, 100, 1, 100))
    assert p < 1e-3
    # natural doubles among the holdout records make the test blind, never trigger-happy
    assert near_copies(np.zeros(50), np.zeros(100)) == (pytest.approx(np.zeros(50)), 1.0)
