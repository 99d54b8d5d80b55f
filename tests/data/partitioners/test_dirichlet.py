import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.partitioners.dirichlet import Dirichlet, floor_cut
from fedimb.data.quotas import dirichlet_shares, largest_remainder
from fedimb.errors import ConfigError


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any),
    st.integers(1, 20),
    st.sampled_from([1e-3, 0.1, 0.5, 100.0]),
    st.integers(0, 2**32),
)
def test_each_class_is_dealt_by_the_largest_remainder_of_its_own_draw(sizes, n, alpha, seed):
    y = np.repeat(np.arange(len(sizes)), sizes)
    counts = np.stack(
        [np.bincount(y[rows], minlength=len(sizes)) for rows in Dirichlet(alpha)(y, n, np.random.default_rng(seed))]
    )
    rng = np.random.default_rng(seed)
    for c in np.flatnonzero(sizes):
        rng.permutation(sizes[c])
        assert counts[:, c].tolist() == largest_remainder(dirichlet_shares(alpha, n, rng), sizes[c]).tolist()


def test_at_alpha_a_thousandth_most_classes_sit_at_one_client():
    # The share a random row falls in is Beta(1 + alpha, 49 alpha): above .995 with probability .77, so of 500
    # classes of 100 rows about 386 are whole (standard deviation 9.4).
    y = np.repeat(np.arange(500), 100)
    counts = np.stack(
        [np.bincount(y[rows], minlength=500) for rows in Dirichlet(1e-3)(y, 50, np.random.default_rng(3))]
    )
    assert 345 < (counts.max(axis=0) == 100).sum() < 427


def test_rows_of_a_class_are_shuffled_before_dealing():
    y = np.zeros(1000, np.int64)
    lists = Dirichlet(100.0)(y, 2, np.random.default_rng(0))
    assert all(400 < rows.mean() < 600 for rows in lists)  # unshuffled: about 250 and 750


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_an_alpha_without_a_distribution(alpha):
    with pytest.raises(ConfigError, match="alpha"):
        Dirichlet(alpha)


def test_a_floor_cut_hands_every_remainder_to_the_last_client():
    y = np.repeat(np.arange(50), 3)  # rare classes: 3 rows for 10 clients
    counts = {
        rounding: sum(
            np.stack(
                [
                    np.bincount(y[rows], minlength=50)
                    for rows in Dirichlet(100.0, rounding)(y, 10, np.random.default_rng(seed))
                ]
            )
            for seed in range(3)
        )
        for rounding in ("largest_remainder", "floor")
    }
    assert counts["floor"][-1].tolist() == [9] * 50
    assert counts["largest_remainder"][-1].sum() < 100  # a tenth of 450 is expected
    with pytest.raises(ConfigError, match="rounding='ceil'"):
        Dirichlet(rounding="ceil")


def test_a_floor_cut_keeps_whole_shares():
    assert floor_cut(np.array([0.29, 0.29, 0.42]), 100).tolist() == [29, 29, 42]
    assert floor_cut(np.array([0.3, 0.3, 0.4]), 5).tolist() == [1, 1, 3]
