import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.partitioners.dir_balance import DirBalance, equal_sizes
from fedimb.errors import ConfigError

TAIL = [200, 120, 70, 40, 25, 14, 8, 5, 3, 2]


def table(y, lists, n_classes):
    return np.stack([np.bincount(y[rows], minlength=n_classes) for rows in lists])


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any),
    st.integers(1, 40),
    st.sampled_from([1e-6, 1e-3, 0.1, 100.0]),
    st.integers(0, 2**32),
)
def test_sizes_differ_by_one_row_at_most(sizes, n, alpha, seed):
    y = np.repeat(np.arange(len(sizes)), sizes)
    held = list(map(len, DirBalance(alpha)(y, n, np.random.default_rng(seed))))
    assert max(held) - min(held) <= 1
    assert sum(held) == len(y)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 6), st.integers(0, 2**32))
def test_with_patients_sizes_differ_by_the_heaviest_patient_at_most(weights, n, seed):
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(len(weights)), weights)
    y = rng.integers(0, 4, len(patients))
    held = list(map(len, DirBalance(0.1, patients=patients)(y, n, rng)))
    assert max(held) - min(held) <= max(weights)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**32))
def test_evening_out_keeps_every_class_total(clients, classes, seed):
    counts = np.random.default_rng(seed).integers(0, 12, (clients, classes))
    even = equal_sizes(counts)
    assert (even >= 0).all()
    assert even.sum(axis=0).tolist() == counts.sum(axis=0).tolist()
    assert np.ptp(even.sum(axis=1)) <= 1


def test_evening_out_moves_the_commonest_class_and_leaves_the_rare_one():
    # Client 0 has 8 rows too many and gives class 0, the commonest; the two below share them by what they lack.
    counts = np.array([[20, 4], [3, 0], [6, 0]])
    assert equal_sizes(counts).tolist() == [[7, 4], [11, 0], [11, 0]]


def test_alpha_makes_the_mixes():
    y = np.repeat(np.arange(10), TAIL)
    skewed, level = (
        table(y, DirBalance(alpha)(y, 10, np.random.default_rng(0)), 10) / (len(y) / 10) for alpha in (0.1, 100.0)
    )
    overall = np.array(TAIL) / sum(TAIL)
    # Mean over clients of the total variation distance to the pooled mix: 0 is IID, 1 is disjoint.
    far, near = (np.abs(mix - overall).sum(axis=1).mean() / 2 for mix in (skewed, level))
    assert far > 0.35
    assert near < 0.12


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_an_alpha_without_a_distribution(alpha):
    with pytest.raises(ConfigError, match="alpha"):
        DirBalance(alpha)
