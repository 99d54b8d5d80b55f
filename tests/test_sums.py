"""Exact sums: the integers of the specification, any tree, the bounds, masks."""

import math
import pickle
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.privacy.secure_sum import mask_values, unmasked_sum
from fedimb.sums import ExactSum, OutOfRange, Scale, ValueOutOfRange, WeightLimits, ceil_log2, sum_of

few = settings(max_examples=60, deadline=None)


def fixed(shift: int, each: int = 10) -> Scale:
    """A scale with this shift for 'w'; bounds as wide as it allows."""
    return Scale(WeightLimits(each, each + 2, 8), {"w": 50 - each - shift})


def integers(total: ExactSum) -> list[int]:
    return total.words()[1:].tolist()


def added(scale, weight, *values, dtype=np.float32):
    total = ExactSum(scale)
    total.add_weighted(weight, {"w": np.array(values, dtype)})
    return total


@pytest.mark.parametrize(
    ("bits", "weight", "integer"),
    [
        (0x3DCCCCCD, 3.0, 322122552),
        (0xBDCCCCCD, 3.0, -322122552),
        (0x3089705F, 7.0, 8),
        (0x3FC00000, 1.0, 1610612736),
        (0xC0100000, 1000.0, -2415919104000),
        (0x3E99999A, 0.5773502691896258, 185977547),
    ],
)
def test_a_product_becomes_the_nearest_integer(bits, weight, integer):
    scale = fixed(30)
    assert scale.shift("w") == 30
    value = np.array([bits], np.uint32).view(np.float32)
    assert integers(added(scale, weight, *value)) == [integer]


def test_the_sum_of_these_products_is_as_specified():
    pairs = [(0.1, 3), (-0.1, 3), (1e-9, 7), (1.5, 1), (-2.25, 1000), (0.3, 0.5773502691896258)]
    total = ExactSum(fixed(30))
    for value, weight in pairs:
        total.add_weighted(weight, {"w": np.array([value], np.float32)})
    assert integers(total) == [-2414122513709]
    assert total.weight == pytest.approx(1014.5773502691897, rel=1e-15)
    assert total.mean()["w"][0] == pytest.approx(-2.2160230506901484, rel=1e-14)
    assert np.float32(total.mean()["w"][0]).view(np.uint32) == 0xC00DD352


def test_ties_go_to_the_even_integer():
    assert integers(added(fixed(0), 1.0, 0.5, 1.5, 2.5, -0.5, -1.5)) == [0, 2, 2, 0, -2]


def test_the_scale_is_the_specified_function_of_model_and_weights():
    limits = WeightLimits.of([500.0] * 50)
    assert (limits.each, limits.total) == (9, 15)
    model = {"w": np.array([[0.5, -1.0]], np.float32), "big": np.array(-5.0, np.float32), "n": np.array(7)}
    scale = Scale.of(model, limits)
    assert [(scale.shift(name), scale.bound(name)) for name in model] == [(35, 64), (32, 512), (0, 2**41)]
    many = Scale.of({"w": np.zeros(1, np.float32)}, WeightLimits(10, 30, 10**6))
    assert many.shift("w") == 26
    assert Scale.of({"none": np.zeros((0, 3), np.float32)}, limits).bound("none") == 64
    assert pickle.loads(pickle.dumps(scale)) == Scale.of(model, limits)
    with pytest.raises(ValueOutOfRange, match="'w' holds a value that is not finite"):
        Scale.of({"w": np.array([0.0, np.nan], np.float32)}, limits)


@given(st.floats(1e-300, 1e300))
def test_powers_of_two_are_found_without_rounding(value):
    n = ceil_log2(value)
    assert Fraction(2) ** (n - 1) < Fraction(value) <= Fraction(2) ** n


def replies(seed, count, wide=True, real=True):
    """Weighted arrays of clients, by name; of values over seven decades if ``wide``."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.001, 1000, count) if real else rng.integers(1, 1000, count).astype(float)
    found = []
    for _ in range(count):
        size = 10.0 ** rng.uniform(-6, 1, 40) if wide else 1.0
        values = np.clip(rng.normal(size=40) * size, -64, 64).astype(np.float32)
        found.append({"w": values[:38].reshape(2, 19), "s": values[38], "n": rng.integers(0, 10**6, 3)})
    return weights.tolist(), found


def scale_for(weights):
    return Scale.of(
        {"w": np.zeros((2, 19), np.float32), "s": np.float32(0), "n": np.zeros(3, int)},
        WeightLimits.of([max(weights)] * len(weights)),
    )


def over_tree(rng, scale, pairs):
    """The sum over a random tree whose leaves are clients in a random order."""
    if len(pairs) <= 1 or rng.random() < 0.2:
        total = ExactSum(scale)
        for weight, arrays in pairs:
            total.add_weighted(weight, arrays)
        return total
    edges = sorted({0, len(pairs), *rng.integers(0, len(pairs), rng.integers(1, 5)).tolist()})
    parts = [over_tree(rng, scale, pairs[a:b]) for a, b in pairwise(edges)]
    total = ExactSum(scale)
    for i in rng.permutation(len(parts)):
        total.add(pickle.loads(pickle.dumps(parts[i])))
    return total


def test_200_random_trees_of_clients_in_random_order_give_the_same_words():
    weights, arrays = replies(3, 100)
    scale, rng = scale_for(weights), np.random.default_rng(0)
    pairs = list(zip(weights, arrays, strict=True))
    expected = over_tree(np.random.default_rng(1), scale, pairs).words()
    in_float64 = set()
    for _ in range(200):
        shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
        np.testing.assert_array_equal(over_tree(rng, scale, shuffled).words(), expected)
        in_float64.add(sum(np.multiply(a["w"], w, dtype=np.float64) for w, a in shuffled).tobytes())
    assert len(in_float64) > 100  # the same clients in float64


@few
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.booleans(), st.booleans())
def test_a_mean_is_the_exact_one_within_the_bound(seed, count, wide, real):
    weights, arrays = replies(seed, count, wide, real)
    scale = scale_for(weights)
    total = over_tree(np.random.default_rng(seed), scale, list(zip(weights, arrays, strict=True)))
    mean, exact_weight = total.mean()["w"].ravel(), sum(map(Fraction, weights))
    bound = 0.5 * count * 2.0 ** -scale.shift("w") / float(exact_weight)
    bound += 64 * 2.0 ** -(scale.limits.unit_bits + 1) * count / float(exact_weight)  # rounded weights
    for i, value in enumerate(mean.tolist()):
        exact = sum(Fraction(w) * Fraction(float(a["w"].flat[i])) for w, a in zip(weights, arrays, strict=True))
        assert abs(Fraction(value) - exact / exact_weight) <= bound + abs(value) * 2.0**-51


def test_integers_are_summed_unscaled_and_a_single_client_is_exact():
    weights, arrays = replies(5, 20, real=False)
    total = over_tree(np.random.default_rng(1), scale_for(weights), list(zip(weights, arrays, strict=True)))
    assert total.sums()["n"].tolist() == sum(int(w) * a["n"] for w, a in zip(weights, arrays, strict=True)).tolist()
    one = added(Scale.of({"w": np.zeros(2)}, WeightLimits.of([500.0])), 500.0, 0.1, -63.7)
    np.testing.assert_array_equal(one.mean()["w"].astype(np.float32), np.array([0.1, -63.7], np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 64.00001, -65.0, 3e38])
def test_a_value_out_of_bounds_is_refused_wherever_it_stands_and_adds_nothing(value):
    scale = Scale.of({"w": np.zeros(70_000, np.float32)}, WeightLimits.of([10.0] * 3))
    for place in (0, 32_767, 32_768, 69_999):
        total = ExactSum(scale)
        total.add_weighted(10.0, {"w": np.full(70_000, 64.0, np.float32)})
        before, wrong = total.words(), np.ones(70_000, np.float32)
        wrong[place] = value
        with pytest.raises(ValueOutOfRange, match="not finite" if not math.isfinite(value) else "'w' holds a value"):
            total.add_weighted(1.0, {"w": wrong})
        np.testing.assert_array_equal(total.words(), before)


def test_nothing_wraps_at_the_largest_values_and_weights_allowed():
    for each, count in ((0, 1), (9, 50), (20, 2**11), (31, 2**11)):
        limits = WeightLimits.of([2.0**each] * count)
        scale = Scale.of({"w": np.zeros(2, np.float32)}, limits)
        total = ExactSum(scale)
        for _ in range(count):
            total.add_weighted(2.0**each, {"w": np.array([64.0, -64.0], np.float32)})
        assert total.mean()["w"].tolist() == [64.0, -64.0]


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (math.nan, "is not a finite number"),
        (math.inf, "is not a finite number"),
        (-1.0, "of at least 0"),
        (16.5, "above 16, the largest one expected"),
        (1e-13, "too small: it is counted in units of 2\\*\\*-40"),
    ],
)
def test_a_weight_that_cannot_be_counted_is_refused(weight, says):
    total = ExactSum(Scale.of({"w": np.zeros(1)}, WeightLimits.of([10.0, 10.0])))
    with pytest.raises(OutOfRange, match=says):
        total.add_weighted(weight, {"w": np.ones(1)})
    assert not total.units


def test_more_weight_than_expected_is_refused_not_wrapped():
    total, one = (ExactSum(Scale.of({"w": np.zeros(1)}, WeightLimits.of([8.0, 8.0]))) for _ in range(2))
    for _ in range(2):
        total.add_weighted(8.0, {"w": np.ones(1)})
    with pytest.raises(OutOfRange, match="add up to more than 16"):
        total.add_weighted(1.0, {"w": np.ones(1)})
    one.add_weighted(1.0, {"w": np.ones(1)})
    with pytest.raises(OutOfRange, match="add up to more than 16"):
        total.add(one)
    assert total.weight == 16


def test_weights_far_below_the_expected_ones_do_not_vanish_in_silence():
    total = added(Scale.of({"w": np.zeros(1)}, WeightLimits.of([2.0**20])), 1e-4, 0.3)
    with pytest.raises(OutOfRange, match="too little for an exact mean"):
        total.mean()
    assert added(Scale.of({"w": np.zeros(1)}, WeightLimits.of([1e-4])), 1e-4, 0.3).mean()["w"] == pytest.approx(0.3)


def test_sums_that_do_not_belong_together_are_refused():
    limits = WeightLimits.of([4.0] * 4)
    small, large = (Scale.of({"w": np.array([v])}, limits) for v in (1.0, 100.0))
    total = added(small, 1.0, 1.0)
    with pytest.raises(OutOfRange, match="different scales"):
        total.add(added(large, 1.0, 1.0))
    with pytest.raises(OutOfRange, match="other shapes"):
        total.add(added(small, 1.0, 1.0, 2.0))
    with pytest.raises(OutOfRange, match="other arrays"):
        total.add_weighted(1.0, {"v": np.ones(1)})
    assert total.mean()["w"] == 1.0


def masks(low, high, n):
    return np.random.default_rng([low, high]).integers(0, 2**64, size=n, dtype=np.uint64)


@few
@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
def test_masked_words_add_up_to_the_sum_in_the_clear(seed, count):
    weights, arrays = replies(seed, count)
    scale, clients = scale_for(weights), list(range(count))
    clear, sent = ExactSum(scale), []
    for client, (weight, own) in enumerate(zip(weights, arrays, strict=True)):
        clear.add_weighted(weight, own)
        alone = ExactSum(scale)
        alone.add_weighted(weight, own)
        sent.append(mask_values(alone.words(), client, clients, masks))
    opened = ExactSum(scale)
    opened.take_words(unmasked_sum(np.stack(sent)), clear.shapes, count)
    np.testing.assert_array_equal(opened.words(), clear.words())
    for name, mean in clear.mean().items():
        np.testing.assert_array_equal(opened.mean()[name], mean)
    with pytest.raises(OutOfRange, match="do all masks cancel"):
        opened.take_words(unmasked_sum(np.stack(sent[:-1])), clear.shapes, count - 1)
    np.testing.assert_array_equal(opened.words(), clear.words())


def test_replies_at_one_place_need_no_bounds():
    weights, values = [1e-9, 3e-9], [np.array([1e9, 2.0]), np.array([5e9, 6.0])]
    mean = sum_of(weights, [{"w": value} for value in values]).mean()["w"]
    np.testing.assert_allclose(mean, [4e9, 5.0], rtol=1e-6)
    assert sum_of([], []).mean() == {}
    with pytest.raises(ValueOutOfRange, match="not finite"):
        sum_of([1.0], [{"w": np.array([np.nan])}])
