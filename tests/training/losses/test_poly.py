import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fedimb.errors import ConfigError
from fedimb.training.losses.poly import Poly1


def draw(seed, n, classes, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator)


def row_losses(z, labels):
    """Cross-entropy of each row in float64 numpy."""
    z = z - z.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(2, 6), st.sampled_from([-1.0, -0.5, 0.0, 2.0]), st.integers(0, 999))
def test_it_is_poly_1_of_leng_et_al(n, classes, epsilon, seed):
    logits, labels = draw(seed, n, classes)
    rows = row_losses(logits.double().numpy(), labels.numpy())
    expected = (rows + epsilon * (1 - np.exp(-rows))).mean()
    assert float(Poly1(epsilon)(logits, labels)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_epsilon_0_is_cross_entropy():
    logits, labels = draw(0, 20, 5)
    assert torch.equal(Poly1(0.0)(logits, labels), cross_entropy(logits, labels, reduction="none").mean())


def test_by_hand_and_its_slope():
    logits = torch.tensor([[math.log(3), 0.0]], requires_grad=True)  # p = 3/4
    value = Poly1(2.0)(logits, torch.tensor([0]))
    assert value.item() == pytest.approx(-math.log(0.75) + 2 / 4, rel=1e-6)
    slope = torch.autograd.grad(value, logits)[0][0, 0]
    assert float(slope) == pytest.approx(-(1 / 4) * (1 + 2 * 3 / 4), rel=1e-5)


@pytest.mark.parametrize("epsilon", [-1.1, math.inf, math.nan])
def test_an_epsilon_outside_its_range_is_refused(epsilon):
    with pytest.raises(ConfigError, match=r"loss 'poly': epsilon=.*at least -1"):
        Poly1(epsilon)
