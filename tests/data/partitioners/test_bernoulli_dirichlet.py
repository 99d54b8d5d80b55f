import numpy as np
import pytest

from fedimb.data.partitioners.bernoulli_dirichlet import BernoulliDirichlet
from fedimb.errors import ConfigError


def test_coins_decide_who_holds_a_class_and_shares_how_much():
    y = np.repeat(np.arange(200), 50)
    lists = BernoulliDirichlet(alpha=1000.0, holds=0.3)(y, 10, np.random.default_rng(0))
    counts = np.stack([np.bincount(y[rows], minlength=200) for rows in lists])
    holders = (counts > 0).sum(0)
    assert holders.min() >= 1
    assert holders.mean() == pytest.approx(3.0, abs=0.3)  # 10 coins of .3; without any, one
    even = counts[:, holders == 5]
    assert even[even > 0].mean() == pytest.approx(10.0)


def test_rows_are_drawn_one_by_one():
    """At a large alpha the counts vary as a multinomial's, where a cut would give 100 to each."""
    y = np.zeros(1000, np.int64)
    counts = [len(rows) for rows in BernoulliDirichlet(alpha=1e6)(y, 10, np.random.default_rng(0))]
    assert 4 < np.std(counts) < 16  # sqrt(1000 x .1 x .9) = 9.5


@pytest.mark.parametrize("bad", [{"alpha": 0.0}, {"alpha": float("inf")}, {"holds": 0.0}, {"holds": 1.1}])
def test_refuses_what_is_no_partition(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        BernoulliDirichlet(**bad)
