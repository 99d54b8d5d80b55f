"""The losses that weigh rows by class: weighted_ce, class_balanced and the weights they share."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fedimb.errors import ConfigError
from fedimb.training.losses.class_balanced import ClassBalanced
from fedimb.training.losses.class_weights import effective_number_weights, filled_counts, mean_one
from fedimb.training.losses.focal import Focal
from fedimb.training.losses.weighted_ce import WeightedCrossEntropy

some_counts = st.lists(st.integers(0, 5_000), min_size=2, max_size=6).filter(any)


def draw(seed, n, classes, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator)


def row_losses(z, labels):
    """Cross-entropy of each row in float64 numpy."""
    z = z - z.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]


def filled(counts):
    return np.array([c or min(x for x in counts if x) for c in counts], dtype=float)


@settings(max_examples=20, deadline=None)
@given(some_counts, st.integers(1, 9), st.integers(0, 999))
def test_weighted_ce_weighs_by_1_over_n_with_mean_1_over_the_classes_held(counts, n, seed):
    logits, labels = draw(seed, n, len(counts))
    weights = 1 / filled(counts)
    weights /= weights[np.array(counts) > 0].mean()
    expected = (weights[labels] * row_losses(logits.double().numpy(), labels.numpy())).mean()
    loss = WeightedCrossEntropy(np.array(counts))
    assert float(loss(logits, labels)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(some_counts, st.sampled_from([0.5, 0.9, 0.9999, 1 - 1e-9]), st.integers(1, 9), st.integers(0, 999))
def test_class_balanced_weighs_by_the_effective_number_and_sums_to_the_classes(counts, beta, n, seed):
    logits, labels = draw(seed, n, len(counts))
    effective = np.array([sum(beta**i for i in range(int(c))) for c in filled(counts)])  # the geometric sum itself
    weights = 1 / effective
    weights *= np.count_nonzero(counts) / weights[np.array(counts) > 0].sum()
    expected = (weights[labels] * row_losses(logits.double().numpy(), labels.numpy())).mean()
    assert float(ClassBalanced(np.array(counts), beta)(logits, labels)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_weights_by_hand():
    # 1/8, 1/2, absent as the rarest: over the two classes held mean 5/16, over the ten rows mean 2/10
    loss = WeightedCrossEntropy(np.array([8, 2, 0]))
    assert loss.weights.tolist() == pytest.approx([0.4, 1.6, 1.6])
    assert WeightedCrossEntropy(np.array([8, 2, 0]), "rows").weights.tolist() == pytest.approx([0.625, 2.5, 2.5])
    # effective numbers of beta 1/2: 1 of one row, 3/2 of two: weights 1, 2/3, rescaled to sum 2
    assert effective_number_weights(np.array([1, 2]), 0.5).tolist() == pytest.approx([1.2, 0.8])


def test_over_the_counted_rows_weighted_ce_is_the_mean_of_the_classes_means():
    logits, _ = draw(3, 12, 3)
    labels = torch.tensor([0] * 8 + [1] * 3 + [2])
    means = [cross_entropy(logits[labels == c], labels[labels == c]) for c in range(3)]
    loss = WeightedCrossEntropy(np.array([8, 3, 1]), mean_over="rows")
    assert float(loss(logits, labels)) == pytest.approx(float(sum(means)) / 3, rel=1e-5)


def test_a_batch_of_one_rare_row_weighs_more_than_one_of_a_common_row():
    loss, logits = WeightedCrossEntropy(np.array([8, 2])), torch.zeros(1, 2)
    common, rare = (float(loss(logits, torch.tensor([c]))) for c in (0, 1))
    assert (common, rare) == pytest.approx((0.4 * math.log(2), 1.6 * math.log(2)))


def test_equal_counts_and_beta_0_are_cross_entropy():
    logits, labels = draw(0, 20, 4)
    plain, tail = cross_entropy(logits, labels), np.array([50, 9, 1, 0])
    for loss in (WeightedCrossEntropy(np.full(4, 7)), ClassBalanced(np.full(4, 7)), ClassBalanced(tail, beta=0.0)):
        assert torch.allclose(loss(logits, labels), plain, atol=1e-6)


def test_beta_near_1_is_weighted_ce_and_gamma_makes_the_rows_focal():
    logits, labels = draw(1, 20, 3)
    counts = np.array([50, 9, 1])
    near = ClassBalanced(counts, beta=1 - 1e-12)(logits, labels)
    assert torch.allclose(near, WeightedCrossEntropy(counts)(logits, labels), rtol=1e-5)
    focal = ClassBalanced(counts, beta=0.0, gamma=2.0)(logits, labels)
    assert torch.allclose(focal, Focal(2.0)(logits, labels), atol=1e-6)


def test_weights_fall_with_the_count_and_fractional_counts_will_do():
    counts = np.array([40.5, 6.2, 0.3])
    for weights in (mean_one(1 / filled_counts(counts), counts), effective_number_weights(counts, 0.99)):
        assert (weights.diff() > 0).all()
        assert float(weights.mean()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(("beta", "gamma"), [(1.0, 0.0), (-0.1, 0.0), (math.nan, 0.0), (0.9, -1.0)])
def test_beta_and_gamma_outside_their_range_are_refused(beta, gamma):
    with pytest.raises(ConfigError, match=r"loss 'class_balanced': (beta|gamma)=.*give a finite number of at least 0"):
        ClassBalanced(np.array([3, 1]), beta, gamma)


def test_unusable_counts_and_means_are_refused():
    for loss in (WeightedCrossEntropy, ClassBalanced):
        for counts in (np.zeros(3), np.array([3, -1]), None):
            with pytest.raises(ValueError, match="class counts"):
                loss(counts)
    with pytest.raises(ValueError, match="'classes' or 'rows'"):
        WeightedCrossEntropy(np.array([3, 1]), mean_over="samples")
