"""Sums of rows are integers: equal for any partition and order, masked or not."""

from functools import partial

import numpy as np
import pytest

from fedimb.discriminant.statistics import (
    FIELDS,
    Units,
    checked,
    class_sums,
    opened,
    scale_of,
    squared_length,
    symmetric,
)
from fedimb.errors import ConfigError, DataError
from fedimb.privacy.secure_sum import mask_values, unmasked_sum

RNG = np.random.default_rng(3)
Y = RNG.integers(0, 4, 60)
X = RNG.normal(size=(60, 7)).astype(np.float32).astype(np.float64) + Y[:, None]
WEIGHTS = np.array([1.0, 0.3, 2.7, 5.0])
KEPT = (0, 1, 3)


def summed(groups, factor=1.0):
    """The sum over clients whose rows are ``groups``, and the units."""
    units = Units.of(float(np.square(X * factor).sum()), len(X), 5.0)
    parts = [class_sums(X[g] * factor, Y[g], KEPT, 4, units, FIELDS, WEIGHTS, KEPT) for g in groups]
    return {name: sum(part[name] for part in parts) for name in parts[0]}, units, parts


def test_a_partition_and_its_order_change_no_bit():
    whole, _, _ = summed([np.arange(60)])
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(60)
        dealt, _, _ = summed([*np.split(order, [1, 20, 21]), np.array([], np.int64)])
        assert all(np.array_equal(whole[name], dealt[name]) for name in whole)


@pytest.mark.parametrize("factor", [1e-4, 1.0, 3e3])
def test_the_sums_are_those_of_the_rows_at_any_scale(factor):
    total, units, _ = summed(np.split(np.arange(60), 3), factor)
    found, x = opened(total, units, WEIGHTS), X[Y != 2] * factor
    y = Y[Y != 2]
    assert found.counts.tolist() == np.bincount(y, minlength=4).tolist()
    exact = {
        "squares": np.square(x).sum(),
        "second": x.T @ x,
        "by_class": np.stack([np.square(x[y == c]).sum(0) for c in range(4)]),
        "scatter": np.stack([x[y == c].T @ x[y == c] for c in range(4)]),
        "weighted": (x * WEIGHTS[y][:, None]).T @ x,
    }
    for name, wanted in exact.items():
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-9, atol=1e-9 * factor**2)
    np.testing.assert_allclose(
        found.sums, np.stack([x[y == c].sum(0) for c in range(4)]), rtol=1e-9, atol=1e-9 * factor
    )


def test_a_class_that_is_left_out_is_in_no_sum():
    total, _, _ = summed([np.arange(60)])
    others, _, _ = summed([np.flatnonzero(Y != 2)])
    assert all(np.array_equal(total[name], others[name]) for name in total)
    assert not total["scatter"][2].any()


def test_a_masked_sum_is_the_open_one():
    total, _, parts = summed(np.split(np.arange(60), 3))

    def shared(low, high, n):
        return np.random.default_rng([low, high]).integers(0, 2**64, size=n, dtype=np.uint64)

    mask = partial(mask_values, clients=[0, 1, 2], shared=shared)
    for name in total:
        sent = np.stack([mask(part[name].ravel(), client=k) for k, part in enumerate(parts)])
        assert np.array_equal(unmasked_sum(sent).reshape(total[name].shape), total[name])


def test_the_size_of_features_is_found_over_many_decades():
    for factor in (1e-5, 1.0, 1e5):
        total = sum(scale_of(X[g] * factor) for g in np.split(np.arange(60), 4))
        wanted = float(np.square(X * factor).sum())
        assert squared_length(total, 60) == pytest.approx(wanted, rel=1e-3)
    for bad in (np.zeros((5, 2)), np.full((5, 2), 1e-9)):
        with pytest.raises(DataError, match="scale the inputs"):
            squared_length(scale_of(bad), 5)
    with pytest.raises(DataError, match="scale them"):
        scale_of(np.full((2, 3), 1e9))


def test_too_many_rows_for_exact_sums_are_refused():
    with pytest.raises(ConfigError, match="use fewer rows"):
        Units.of(1e10, 10**10)


def test_rows_that_are_not_finite_are_named():
    x = X.copy()
    x[[4, 9], 1] = np.nan, np.inf
    with pytest.raises(DataError, match=r"2 rows are NaN or infinite \(rows 104, 109\)"):
        checked(x, Y, np.arange(100, 160), 4)
    with pytest.raises(DataError, match="labels must lie in 0 to 2"):
        checked(X, Y, np.arange(60), 3)
    with pytest.raises(DataError, match="give features"):
        checked(X, Y[:3], np.arange(60), 4)


def test_triangles_become_matrices():
    assert symmetric(np.array([1.0, 2.0, 3.0]), 2).tolist() == [[1.0, 2.0], [2.0, 3.0]]
