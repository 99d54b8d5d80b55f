import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import ConfigError, DataError
from fedimb.generation.coverage import coverage, noised, report_bytes


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=40))
def test_counts_every_row_in_its_cell(pairs):
    y, d = np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int64)
    found = coverage(y, d, 5, 3)
    assert found.dtype == np.int64
    assert {(c, e): found[c, e] for c in range(5) for e in range(3)} == {
        (c, e): pairs.count((c, e)) for c in range(5) for e in range(3)
    }


def test_rows_of_a_site_without_devices_are_all_of_device_0():
    assert coverage(np.array([1, 1, 2]), None, 4).tolist() == [[0], [2], [1], [0]]


@pytest.mark.parametrize(
    ("y", "d", "match"),
    [([0, 3], [0, 0], "row 1: class 3"), ([0, 1], [0, -1], "row 1: device -1"), ([0, 1], [0], "device per row")],
)
def test_ids_that_do_not_exist_are_refused(y, d, match):
    with pytest.raises(DataError, match=match):
        coverage(np.array(y), np.array(d), 3, 2)


def laplace(seed):
    return lambda count: np.random.default_rng(seed).laplace(size=count)


def test_noise_is_laplace_of_scale_one_over_epsilon_rounded():
    counts = np.full((200, 100), 1000)
    noise = noised(counts, 0.5, laplace(0)) - counts
    # Rounded Laplace of scale b: P(0) = 1 - e^(-1/2b), variance 2 b^2 + 1/12 - small; n = 20,000.
    assert abs((noise == 0).mean() - (1 - np.exp(-0.25))) < 0.012
    assert abs(noise.mean()) < 0.08
    assert 7.5 < noise.var() < 8.7


def test_empty_cells_are_noised_too_and_nothing_is_below_0():
    found = noised(np.zeros((50, 4), np.int64), 0.2, laplace(1))
    assert found.dtype == np.int64
    assert found.min() == 0
    assert (found > 0).mean() > 0.3


def test_a_patient_of_ten_rows_is_protected_by_ten_times_the_noise():
    counts = np.full((100, 100), 10_000)
    spread = [np.abs(noised(counts, 1.0, laplace(0), rows) - counts).mean() for rows in (1, 10)]
    assert 8 < spread[1] / spread[0] < 12


def test_no_noise_at_infinite_epsilon_and_none_without_one():
    counts = np.arange(6).reshape(3, 2)
    assert np.array_equal(noised(counts, np.inf, laplace(0)), counts)
    for epsilon in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="epsilon"):
            noised(counts, epsilon, laplace(0))
    with pytest.raises(ConfigError, match="rows_per_unit"):
        noised(counts, 1.0, laplace(0), 0)


def test_bytes_are_those_of_the_array_sent():
    assert report_bytes(8, 6) == coverage(np.zeros(3, np.int64), None, 8, 6).nbytes
