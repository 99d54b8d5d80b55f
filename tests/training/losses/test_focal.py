import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fedimb.errors import ConfigError
from fedimb.training.losses.focal import Focal, focal_rows


def draw(seed, n, classes, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator)


def softmax(logits):
    z = logits.double().numpy()
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(2, 6), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]), st.integers(0, 999))
def test_it_is_equation_4_of_lin_et_al(n, classes, gamma, seed):
    logits, labels = draw(seed, n, classes)
    p = softmax(logits)[np.arange(n), labels.numpy()]
    expected = (-((1 - p) ** gamma) * np.log(p)).mean()
    assert float(Focal(gamma)(logits, labels)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_gamma_0_is_cross_entropy():
    logits, labels = draw(0, 20, 5)
    assert torch.allclose(Focal(0.0)(logits, labels), cross_entropy(logits, labels), atol=1e-6)


def test_by_hand():
    logits, labels = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    rows = focal_rows(logits, labels, 2.0)
    assert rows.tolist() == pytest.approx([-(0.25**2) * math.log(0.75), 0.25 * math.log(2)], rel=1e-5)
    assert float(Focal(2.0)(logits, labels)) == pytest.approx(float(rows.mean()))


def test_the_slope_is_the_one_of_the_formula():
    logits, labels = draw(1, 6, 4)
    logits.requires_grad_()
    slope = torch.autograd.grad(Focal(2.0)(logits, labels), logits)[0].double().numpy()
    p, y, step = softmax(logits.detach()), labels.numpy(), 1e-6
    numeric = np.zeros_like(p)
    for row, column in np.ndindex(p.shape):
        ends = []
        for sign in (1, -1):
            z = logits.detach().double().clone()
            z[row, column] += sign * step
            q = softmax(z)[np.arange(6), y]
            ends.append((-((1 - q) ** 2) * np.log(q)).mean())
        numeric[row, column] = (ends[0] - ends[1]) / (2 * step)
    assert np.allclose(slope, numeric, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0, 50.0])
@pytest.mark.parametrize("size", [0.0, 1e4])
def test_extreme_logits_of_one_row_stay_finite(gamma, size):
    for label in (0, 1):
        logits = torch.tensor([[size, -size, 0.0]], requires_grad=True)
        value = Focal(gamma)(logits, torch.tensor([label]))
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, logits)[0]).all()


@pytest.mark.parametrize("gamma", [-1.0, math.inf, math.nan])
def test_a_gamma_outside_its_range_is_refused(gamma):
    with pytest.raises(ConfigError, match=r"loss 'focal': gamma=.*at least 0"):
        Focal(gamma)
