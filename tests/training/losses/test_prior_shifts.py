"""The losses that shift logits by the class prior beyond balanced softmax: logit_adjusted and vs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fedimb.errors import ConfigError
from fedimb.training.losses.balanced_softmax import BalancedSoftmax
from fedimb.training.losses.logit_adjusted import LogitAdjusted
from fedimb.training.losses.vs import VectorScaling

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
@given(some_counts, st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.integers(1, 9), st.integers(0, 999))
def test_logit_adjusted_is_equation_10_of_menon_et_al(counts, tau, n, seed):
    logits, labels = draw(seed, n, len(counts))
    prior = filled(counts) / filled(counts).sum()
    expected = row_losses(logits.double().numpy() + tau * np.log(prior), labels.numpy()).mean()
    loss = LogitAdjusted(np.array(counts), tau)
    assert float(loss(logits, labels)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(some_counts, st.sampled_from([0.0, 0.15, 1.0]), st.sampled_from([0.0, 1.25]), st.integers(1, 9))
def test_vs_scales_by_the_count_and_shifts_by_the_prior(counts, gamma, tau, n):
    logits, labels = draw(n, n, len(counts))
    size = filled(counts)
    z = logits.double().numpy() * (size / size.max()) ** gamma + tau * np.log(size / size.sum())
    loss = VectorScaling(np.array(counts), gamma, tau)
    assert float(loss(logits, labels)) == pytest.approx(row_losses(z, labels.numpy()).mean(), rel=1e-4, abs=1e-5)


def test_vs_by_hand():
    # counts 4 and 1, gamma 1/2: factors 1 and 1/2; tau 1: odds 4 to 1. Logits 0 and 2 ln 4 become equal odds.
    loss = VectorScaling(np.array([4, 1]), gamma=0.5, tau=1.0)
    assert loss.factor.tolist() == [1.0, 0.5]
    assert float(loss(torch.tensor([[0.0, 2 * math.log(4)]]), torch.tensor([1]))) == pytest.approx(
        math.log(2), rel=1e-6
    )


def test_tau_1_is_balanced_softmax_and_tau_0_cross_entropy():
    logits, labels = draw(0, 20, 4)
    counts = np.array([90, 9, 1, 0])
    balanced, plain = BalancedSoftmax(counts)(logits, labels), cross_entropy(logits, labels)
    for loss in (LogitAdjusted(counts, tau=1.0), VectorScaling(counts, gamma=0.0, tau=1.0)):
        assert torch.allclose(loss(logits, labels), balanced, atol=1e-6)
    for loss in (LogitAdjusted(counts, tau=0.0), VectorScaling(counts, gamma=0.0, tau=0.0)):
        assert torch.allclose(loss(logits, labels), plain, atol=1e-6)


def test_equal_counts_are_cross_entropy():
    logits, labels = draw(1, 20, 4)
    for loss in (LogitAdjusted(np.full(4, 7), 1.5), VectorScaling(np.full(4, 7), 0.3, 1.5)):
        assert torch.allclose(loss(logits, labels), cross_entropy(logits, labels), atol=1e-6)


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_arguments_outside_their_range_are_refused(value):
    counts = np.array([3, 1])
    with pytest.raises(ConfigError, match=r"loss 'logit_adjusted': tau=.*at least 0"):
        LogitAdjusted(counts, value)
    with pytest.raises(ConfigError, match=r"loss 'vs': gamma=.*at least 0"):
        VectorScaling(counts, gamma=value)
    with pytest.raises(ConfigError, match=r"loss 'vs': tau=.*at least 0"):
        VectorScaling(counts, tau=value)


@pytest.mark.parametrize("loss", [LogitAdjusted, VectorScaling])
def test_without_counts_there_is_no_loss(loss):
    with pytest.raises(ValueError, match="class counts"):
        loss(np.zeros(3))
