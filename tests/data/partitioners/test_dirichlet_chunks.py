import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.partitioners.dirichlet_chunks import DirichletChunks
from fedimb.errors import ConfigError

TAIL = [500, 299, 179, 107, 64, 38, 23, 13, 8, 5]  # CIFAR-10-LT's shape at imbalance 100


@settings(deadline=None, max_examples=6)
@given(st.integers(1, 25), st.sampled_from([1e-3, 0.5, 100.0]), st.integers(0, 2**32))
def test_sizes_differ_by_one_row_at_most(clients, alpha, seed):
    y = np.repeat(np.arange(10), TAIL)
    sizes = [len(rows) for rows in DirichletChunks(alpha)(y, clients, np.random.default_rng(seed))]
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == len(y)


def test_blocks_have_rows_of_their_own_and_full_clients_take_no_more():
    y = np.repeat(np.arange(10), TAIL)
    draw = DirichletChunks(0.5)._draw(np.arange(len(y)), y, 10, np.random.default_rng(0))
    sizes = np.array([len(rows) for rows in draw])
    assert sizes.min() >= int(0.5 * len(y) / 10)
    for rows in draw:  # a client is open to a class only while it is below the mean: what exceeds it is its last class
        last = y[rows].max()
        assert (y[rows] < last).sum() < len(y) / 10
    two = DirichletChunks(0.5)(y, 20, np.random.default_rng(0))
    first = np.random.default_rng(0).permutation(len(y))[: len(y) // 2 + len(y) % 2]
    assert set(np.concatenate(two[:9])) <= set(first)


def test_alpha_makes_the_mixes():
    y = np.repeat(np.arange(10), TAIL)
    overall = np.array(TAIL) / sum(TAIL)

    def apart(alpha):
        lists = DirichletChunks(alpha)(y, 20, np.random.default_rng(0))
        mixes = np.stack([np.bincount(y[rows], minlength=10) / len(rows) for rows in lists])
        return np.abs(mixes - overall).sum(1).mean() / 2

    assert apart(100.0) < 0.15 < 0.3 < apart(0.1)


@pytest.mark.parametrize("bad", [{"alpha": 0.0}, {"alpha": float("nan")}, {"block": 0}])
def test_refuses_what_is_no_partition(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        DirichletChunks(**bad)
