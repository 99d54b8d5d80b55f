import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fedimb.training.losses.balanced_softmax import BalancedSoftmax


def draw(seed, n, classes):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(1, 10_000), min_size=2, max_size=6), st.integers(0, 999))
def test_it_is_equation_4_of_ren_et_al(n, counts, seed):
    logits, labels = draw(seed, n, len(counts))
    weighted = torch.tensor(counts, dtype=torch.float64) * logits.double().exp()
    expected = -(weighted[torch.arange(n), labels] / weighted.sum(1)).log().mean()
    assert torch.allclose(BalancedSoftmax(np.array(counts))(logits, labels).double(), expected, atol=1e-4)


def test_with_equal_counts_it_is_cross_entropy():
    logits, labels = draw(0, 20, 5)
    assert torch.allclose(BalancedSoftmax(np.full(5, 7))(logits, labels), cross_entropy(logits, labels), atol=1e-6)


def test_shifting_all_logits_or_scaling_all_counts_changes_nothing():
    logits, labels = draw(1, 20, 3)
    counts = np.array([90, 9, 1])
    base = BalancedSoftmax(counts)(logits, labels)
    assert torch.allclose(BalancedSoftmax(counts)(logits + 5, labels), base, atol=1e-5)
    assert torch.allclose(BalancedSoftmax(counts * 13)(logits, labels), base, atol=1e-5)


def test_an_absent_class_weighs_as_the_rarest_and_the_loss_stays_finite():
    logits, labels = draw(2, 20, 3)
    with_zero = BalancedSoftmax(np.array([90, 9, 0]))(logits, labels)
    assert torch.allclose(with_zero, BalancedSoftmax(np.array([90, 9, 9]))(logits, labels), atol=1e-6)


def test_the_shift_is_neither_trained_nor_sent():
    loss = BalancedSoftmax(np.array([3, 1]))
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}


def test_without_counts_there_is_no_loss():
    with pytest.raises(ValueError, match="class counts"):
        BalancedSoftmax(np.zeros(3))
