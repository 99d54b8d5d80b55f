import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.serverapp.keyed_permutation import KeyedPermutation


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**62), st.integers(0, 99))
def test_every_number_once_and_the_same_ones_however_they_are_read(n, seed, server_round):
    order = KeyedPermutation(n, (seed, 4, server_round))
    whole = order(np.arange(n))
    assert np.array_equal(np.sort(whole), np.arange(n))
    assert np.array_equal(order(np.arange(n)[::-1]), whole[::-1])
    assert np.array_equal(KeyedPermutation(n, (seed, 4, server_round))(np.array([n - 1])), whole[-1:])


def test_other_keys_give_other_orders():
    first = [tuple(KeyedPermutation(1000, key)(np.arange(20))) for key in ((0, 1), (0, 2), (1, 1), (1, 2))]
    assert len(set(first)) == 4


@pytest.mark.parametrize("n", [10**8, 2**62])
def test_of_very_many_numbers_the_first_differ_and_are_in_range(n):
    found = KeyedPermutation(n, (7,))(np.arange(5000))
    assert found.min() >= 0
    assert found.max() < n
    assert len(np.unique(found)) == 5000


def test_the_first_numbers_are_spread_evenly():
    """The first 40,000 of 10**8 fall evenly into 50 ranges: chi-square of 49 degrees of freedom."""
    counts = np.bincount(KeyedPermutation(10**8, (3, 1))(np.arange(40_000)) // (2 * 10**6), minlength=50)
    assert ((counts - 800) ** 2 / 800).sum() < 49 + 5 * np.sqrt(2 * 49)


def test_a_number_of_bits_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="give 1 to 2"):
        KeyedPermutation(2**62 + 1, (0,))
