"""Contrasts over data sets: planted effects come back, and data sets, not partitions or rows, are the sample."""

import math

import numpy as np
import pytest
from scipy import stats

from fedimb.evaluation.mixed_model import MIXED, mixed_contrasts


@pytest.fixture(scope="module", autouse=True)
def statsmodels():
    """Loaded once, outside the clock of any test."""
    return pytest.importorskip("statsmodels.regression.mixed_linear_model")


def drawn(sets, partitions, gains, seed=0, interaction=0.02, error=0.01):
    """(scores, data sets, partitions, rows) in which every source of variance is planted."""
    rng = np.random.default_rng(seed)
    cells = [(s, p, r) for s in range(sets) for p in range(partitions) for r in range(len(gains))]
    level, hard = rng.normal(0.7, 0.1, sets), rng.normal(0, 0.05, (sets, partitions))
    own = rng.normal(0, interaction, (sets, len(gains)))
    scores = [level[s] + hard[s, p] + gains[r] + own[s, r] + rng.normal(0, error) for s, p, r in cells]
    return scores, [f"s{s}" for s, _, _ in cells], [f"s{s} p{p}" for s, p, _ in cells], [f"r{r}" for _, _, r in cells]


def by_set(data, first, second):
    scores, sets, _, rows = data
    means = {key: [] for key in dict.fromkeys(sets)}
    for score, data_set, row in zip(scores, sets, rows, strict=True):
        means[data_set].append(score * ((row == first) - (row == second)))
    return [sum(own) / (len(own) / len(set(rows))) for own in means.values()]


def test_with_two_rows_it_is_the_paired_t_test_over_data_sets():
    data = drawn(10, 3, [0.0, 0.03])
    (found,) = mixed_contrasts(*data, [("r1", "r0")], 0.01)
    gaps = by_set(data, "r1", "r0")
    theirs = stats.ttest_1samp(gaps, 0)
    low, high = theirs.confidence_interval(0.95)
    assert found.method == MIXED
    assert (found.difference, found.p) == pytest.approx((np.mean(gaps), theirs.pvalue), rel=0.01)
    assert (found.low, found.high) == pytest.approx((low, high), rel=3e-3)
    assert found.p_equal == pytest.approx(stats.ttest_1samp(gaps, 0.01, alternative="less").pvalue, rel=0.01)


def test_planted_effects_come_back_within_their_intervals():
    gains = [0.0, 0.05, -0.04, 0.05]
    data = drawn(16, 2, gains, seed=1)
    pairs = [("r1", "r0"), ("r2", "r0"), ("r3", "r1")]
    found = dict(zip(pairs, mixed_contrasts(*data, pairs, 0.02), strict=True))
    for (first, second), effect in found.items():
        planted = gains[int(first[1])] - gains[int(second[1])]
        assert effect.low < planted < effect.high
        assert effect.sets == 16
    assert found["r1", "r0"].p < 0.001
    assert found["r2", "r0"].p < 0.001
    assert found["r3", "r1"].p > 0.05


def test_a_contrast_is_as_certain_as_its_own_two_rows():
    """A third row that varies wildly from data set to data set does not blur two that are alike."""
    scores, sets, partitions, rows = drawn(8, 1, [0.0, 0.02, 0.3], interaction=0.002, error=0.002)
    wild = np.random.default_rng(5).normal(0, 0.2, len(scores))
    scores = [score + noise * (row == "r2") for score, noise, row in zip(scores, wild, rows, strict=True)]
    with_wild, _ = mixed_contrasts(scores, sets, partitions, rows, [("r1", "r0"), ("r2", "r0")], 0.01)
    own = [at for at, row in enumerate(rows) if row != "r2"]
    parts = ([values[at] for at in own] for values in (scores, sets, partitions, rows))
    (alone,) = mixed_contrasts(*parts, [("r1", "r0")], 0.01)
    assert with_wild == alone
    assert alone.high - alone.low < 0.02


def test_partitions_and_their_rows_are_no_more_data_sets():
    """The same rows in ten partitions instead of one: what differs from set to set stays as uncertain."""
    one, ten = (drawn(6, parts, [0.0, 0.01], interaction=0.05, error=1e-3) for parts in (1, 10))
    few, many = (mixed_contrasts(*data, [("r1", "r0")], 0.01)[0] for data in (one, ten))
    half = stats.t.ppf(0.975, 5) * np.std(by_set(ten, "r1", "r0"), ddof=1) / math.sqrt(6)
    assert many.high - many.low == pytest.approx(2 * half, rel=0.2)  # here REML lends from the data sets' variance
    assert many.high - many.low > 0.5 * (few.high - few.low)  # with partitions as data sets: .3
    assert few.high - few.low > 0.03


def test_one_set_equal_scores_and_a_missing_cell():
    (alone,) = mixed_contrasts([0.5, 0.6], ["a", "a"], ["p", "p"], ["x", "y"], [("y", "x")], 0.01)
    assert alone.difference == pytest.approx(0.1)
    assert math.isnan(alone.p)
    flat = [0.5] * 6, ["a", "a", "b", "b", "c", "c"], ["a", "a", "b", "b", "c", "c"], ["x", "y"] * 3
    (equal,) = mixed_contrasts(*flat, [("y", "x")], 0.01)
    assert (equal.difference, equal.low, equal.high, equal.p, equal.p_equal) == (0, 0, 0, 1, 0)
    with pytest.raises(ValueError, match="every row in every partition"):
        mixed_contrasts([0.5, 0.6, 0.7], ["a", "a", "b"], ["a", "a", "b"], ["x", "y", "x"], [("y", "x")], 0.01)
    with pytest.raises(ValueError, match="one finite score"):
        mixed_contrasts([0.5, math.nan], ["a", "a"], ["a", "a"], ["x", "y"], [("y", "x")], 0.01)
