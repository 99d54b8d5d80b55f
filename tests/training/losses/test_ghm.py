"""Losses that weigh elements by how many others of the batch have an error like theirs: GHM-C and L1DFL."""

import math

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.training.losses.bce import BinaryCrossEntropy
from fedimb.training.losses.focal import Focal
from fedimb.training.losses.ghm import GradientHarmonized
from fedimb.training.losses.l1dfl import L1WeightedDiceFocal


def draw(seed, rows, classes):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, classes, generator=generator), torch.randint(classes, (rows,), generator=generator)


def logit(p):
    return torch.tensor(p).logit()


def test_ghm_by_hand():
    # errors .1, .2, .3 and .9: three in the lower of two bins, one in the upper; weights 4 / (3 x 2) and 4 / (1 x 2)
    logits, targets = logit([[0.1, 0.2], [0.7, 0.1]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    expected = (2 / 3 * -(math.log(0.9) + math.log(0.8) + math.log(0.7)) + 2 * -math.log(0.1)) / 2
    assert float(GradientHarmonized(bins=2)(logits, targets)) == pytest.approx(expected, rel=1e-5)


def test_ghm_of_an_even_density_is_binary_cross_entropy():
    logits, targets = logit([[0.05, 0.15], [0.25, 0.35], [0.45, 0.55], [0.65, 0.75], [0.85, 0.95]]), torch.zeros(5, 2)
    expected = BinaryCrossEntropy()(logits, targets)
    torch.testing.assert_close(GradientHarmonized(bins=10)(logits, targets), expected)
    torch.testing.assert_close(GradientHarmonized(bins=1)(logits, targets), expected)


def test_ghm_takes_labels_or_their_one_hot_targets():
    logits, labels = draw(0, 9, 4)
    one_hot = torch.nn.functional.one_hot(labels, 4)
    torch.testing.assert_close(GradientHarmonized()(logits, one_hot), GradientHarmonized()(logits, labels))


def test_the_density_is_a_constant_of_the_step():
    logits, labels = draw(1, 9, 4)
    logits.requires_grad_()
    loss, targets = GradientHarmonized(), torch.nn.functional.one_hot(labels, 4)
    found = torch.autograd.grad(loss(logits, labels), logits)[0]
    torch.testing.assert_close(found, loss.weights(logits, targets.float()) * (logits.sigmoid() - targets).detach() / 9)


def l1dfl(logits, labels, epsilon, gamma):
    """The equations again, with NumPy's histogram."""
    z = logits.double().numpy()
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    t = np.eye(z.shape[1])[labels.numpy()]
    centres = np.linspace(0, 1, round(1 / epsilon) + 1)
    edges = np.concatenate([[0], (centres[:-1] + centres[1:]) / 2, [1]])
    error = np.abs(p - t)
    density = np.histogram(error, edges)[0] / np.diff(edges)
    weight = error.size / density[np.digitize(error, edges[1:-1])]
    dice = 2 * (weight * p * t).sum(axis=0) / (weight * (p**2 + t**2)).sum(axis=0)
    own = (p * t).sum(axis=1)
    return 1 - dice.mean() + (-((1 - own) ** gamma) * np.log(own)).mean()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("epsilon", "gamma"), [(0.05, 2.0), (0.25, 0.0)])
def test_l1dfl_equals_its_equations(seed, epsilon, gamma):
    logits, labels = draw(seed, 40, 3)
    assert float(L1WeightedDiceFocal(gamma, epsilon)(logits, labels)) == pytest.approx(
        l1dfl(logits, labels, epsilon, gamma), rel=1e-4
    )


def test_l1dfl_of_equal_errors_is_an_unweighted_dice_loss():
    # two rows of two classes with p = 3/4 for their labels: every error is 1/4, and the common weight cancels
    logits, labels = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]]), torch.tensor([0, 1])
    dice = 2 * 0.75 / (0.75**2 + 0.25**2 + 1)
    expected = 1 - dice + float(Focal(2.0)(logits, labels))
    assert float(L1WeightedDiceFocal()(logits, labels)) == pytest.approx(expected, rel=1e-5)


def test_the_bins_at_both_ends_are_half_as_wide():
    weights = L1WeightedDiceFocal(epsilon=0.5).weights(torch.tensor([0.0, 0.5, 0.5, 1.0]))
    assert weights.tolist() == [4 * 0.25, 4 * 0.5 / 2, 4 * 0.5 / 2, 4 * 0.25]


def test_arguments_outside_their_range_are_refused():
    with pytest.raises(ConfigError, match="loss 'ghm': bins=0"):
        GradientHarmonized(bins=0)
    for wrong in ({"epsilon": 0.0}, {"epsilon": 1.5}, {"gamma": -1.0}):
        with pytest.raises(ConfigError, match="loss 'l1dfl'"):
            L1WeightedDiceFocal(**wrong)
