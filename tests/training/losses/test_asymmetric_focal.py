import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from fedimb.errors import ConfigError
from fedimb.training.losses.asymmetric_focal import AsymmetricFocal
from fedimb.training.losses.focal import Focal, focal_rows


def draw(seed, n, classes, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(2, 6),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.5, 4.0]),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.integers(0, 999),
)
def test_it_is_the_asymmetric_loss_of_ridnik_et_al_on_one_hot_labels(n, classes, pos, neg, margin, seed):
    logits, labels = draw(seed, n, classes)
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    shifted = np.maximum(p - margin, 0)
    terms = -(shifted**neg) * np.log(1 - shifted)
    y = np.arange(n), labels.numpy()
    terms[y] = -((1 - p[y]) ** pos) * np.log(p[y])
    expected = terms.sum(axis=1).mean()
    loss = AsymmetricFocal(pos, neg, margin)
    assert float(loss(logits, labels)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_by_hand():
    # sigmoid 3/4 of the label, 1/4 and 1/2 of the others: -log(3/4) + 0 + (1/4)^2 * -log(3/4)
    logits = torch.tensor([[math.log(3), -math.log(3), 0.0]])
    value = AsymmetricFocal(gamma_pos=0.0, gamma_neg=2.0, margin=0.25)(logits, torch.tensor([0]))
    assert float(value) == pytest.approx(-math.log(0.75) * (1 + 1 / 16), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_equal_gammas_without_margin_are_the_focal_losses_of_one_class_against_the_rest(gamma):
    logits, labels = draw(1, 20, 4)
    expected = torch.zeros(20)
    for c in range(4):  # a sigmoid of z is the softmax of (z, 0)
        pair = torch.stack([logits[:, c], torch.zeros(20)], dim=1)
        expected += focal_rows(pair, (labels != c).long(), gamma)
    loss = AsymmetricFocal(gamma, gamma, 0.0)
    assert torch.allclose(loss(logits, labels), expected.mean(), rtol=1e-5)


def test_with_two_opposite_logits_that_is_twice_the_softmax_focal_loss_of_one():
    z, labels = draw(2, 20, 1)[0], draw(3, 20, 2)[1]
    binary = AsymmetricFocal(2.0, 2.0, 0.0)(torch.cat([z, -z], 1), labels)
    assert torch.allclose(binary, 2 * Focal(2.0)(torch.cat([z, torch.zeros_like(z)], 1), labels), rtol=1e-5)


def test_gammas_0_without_margin_are_binary_cross_entropies():
    logits, labels = draw(4, 20, 5)
    expected = 5 * binary_cross_entropy_with_logits(logits, one_hot(labels, 5).float())
    assert torch.allclose(AsymmetricFocal(0.0, 0.0, 0.0)(logits, labels), expected, rtol=1e-5)


def test_negatives_below_the_margin_are_dropped():
    logits = torch.tensor([[0.0, -4.0, 1.0]], requires_grad=True)  # sigmoid(-4) = .018
    slope = torch.autograd.grad(AsymmetricFocal()(logits, torch.tensor([0])), logits)[0][0]
    assert slope[1] == 0
    assert slope[0] < 0 < slope[2]


@pytest.mark.parametrize("margin", [0.0, 1e-9, 0.05])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 4.0])
def test_extreme_logits_and_those_at_the_margin_stay_finite(gamma, margin):
    edge = math.log(margin / (1 - margin)) if margin else 0.0
    logits = torch.tensor([[1e4, -1e4, 0.0, 90.0, -90.0, edge, edge + 1e-6]], requires_grad=True)
    for label in range(7):
        value = AsymmetricFocal(gamma, gamma, margin)(logits, torch.tensor([label]))
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, logits)[0]).all()


@pytest.mark.parametrize("wrong", [{"gamma_pos": -1.0}, {"gamma_neg": math.inf}, {"margin": 1.0}, {"margin": -0.1}])
def test_arguments_outside_their_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"loss 'asymmetric_focal': {next(iter(wrong))}=.*at least 0"):
        AsymmetricFocal(**wrong)
