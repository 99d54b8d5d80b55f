"""Masks cancel in the sum over all clients and hide everything in any other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.privacy.secure_sum import from_fixed, mask_values, to_fixed, unmasked_sum


def shared(low, high, count):
    return np.random.default_rng([low, high]).integers(0, 2**64, size=count, dtype=np.uint64)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31))
def test_masks_cancel_in_the_sum_of_all_and_in_no_other(clients, width, seed):
    values = np.random.default_rng(seed).integers(-(2**40), 2**40, size=(clients, width))
    ids = list(range(10, 10 + clients))
    sent = np.stack([mask_values(v, i, ids, shared) for i, v in zip(ids, values, strict=True)])
    assert sent.dtype == np.uint64
    assert np.array_equal(unmasked_sum(sent), values.sum(axis=0))
    if clients > 1:
        assert not np.array_equal(unmasked_sum(sent[1:]), values[1:].sum(axis=0))
        assert not np.array_equal(sent[0].view(np.int64), values[0])


def test_a_masked_vector_is_uniform_whatever_it_hides():
    sent = mask_values(np.zeros(20000, np.int64), 2, [1, 2, 5], shared) / 2.0**64
    histogram = np.bincount((sent * 16).astype(int), minlength=16)
    assert ((histogram - 1250) ** 2 / 1250).sum() < 45  # chi-square, 15 degrees of freedom: P = 1e-4


def test_a_client_that_is_not_among_those_told_of_is_refused():
    with pytest.raises(ValueError, match="client 3 must be among"):
        mask_values(np.zeros(2, np.int64), 3, [1, 2], shared)


def test_fixed_point_keeps_real_numbers_to_a_millionth():
    values = np.array([-3.25, 0.0, 1e-7, 123456.789012])
    np.testing.assert_allclose(from_fixed(to_fixed(values)), values, atol=2.0**-21)
