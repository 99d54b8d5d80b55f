"""Binary cross-entropies of several labels per row, plain and weighted, and the asymmetric loss on such targets."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.training.losses.asymmetric_focal import AsymmetricFocal
from fedimb.training.losses.bce import BinaryCrossEntropy
from fedimb.training.losses.weighted_bce import WeightedBinaryCrossEntropy

SEVERAL = [name for name in registry.names("loss") if "multilabel" in registry.flags("loss", name).get("tasks", ())]


def draw(seed, *shape, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator), (torch.rand(*shape, generator=generator) < 0.4).float()


def built(name, counts=(40, 6, 0)):
    return registry.build("loss", name, {"n_classes": len(counts), "prior": np.array(counts)})


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 999))
def test_it_is_the_sum_over_classes_and_the_mean_over_rows(n, classes, seed):
    logits, targets = draw(seed, n, classes)
    p, t = 1 / (1 + np.exp(-logits.double().numpy())), targets.numpy()
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(axis=1).mean()
    assert float(BinaryCrossEntropy()(logits, targets)) == pytest.approx(expected, rel=1e-4)


def test_weights_by_hand():
    loss = WeightedBinaryCrossEntropy(np.array([100, 25, 4, 0]), cap=20)
    assert loss.weights.tolist() == [1, 4, 20, 20]
    assert WeightedBinaryCrossEntropy(np.array([100, 25, 4]), power=0.5).weights.tolist() == [1, 2, 5]
    # log 2 for each of four classes; those of classes 1 and 3 are positives
    value = loss(torch.zeros(1, 4), torch.tensor([[0.0, 1.0, 0.0, 1.0]]))
    assert float(value) == pytest.approx((1 + 4 + 1 + 20) * math.log(2), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 4.0]), st.sampled_from([0.0, 0.05]), st.integers(0, 999))
def test_the_asymmetric_loss_on_several_labels(pos, neg, margin, seed):
    logits, targets = draw(seed, 5, 4)
    p, t = 1 / (1 + np.exp(-logits.double().numpy())), targets.numpy()
    shifted = np.maximum(p - margin, 0)
    each = np.where(t == 1, -((1 - p) ** pos) * np.log(p), -(shifted**neg) * np.log(1 - shifted))
    value = AsymmetricFocal(pos, neg, margin)(logits, targets)
    assert float(value) == pytest.approx(each.sum(axis=1).mean(), rel=1e-4, abs=1e-6)


def test_which_losses_serve_several_labels():
    assert {"bce", "weighted_bce", "asymmetric_focal"} <= set(SEVERAL)


@pytest.mark.parametrize("name", [name for name in SEVERAL if registry.flags("loss", name)["stackable"]])
def test_one_label_per_row_is_a_one_hot_target_for_any_leading_shape(name):
    logits = draw(1, 2, 7, 3)[0]
    labels = torch.randint(3, (2, 7), generator=torch.Generator().manual_seed(2))
    targets = torch.nn.functional.one_hot(labels, 3).float()
    loss = built(name)
    rows = loss.rows(logits, targets)
    assert rows.shape == (2, 7)
    assert torch.allclose(rows, loss.rows(logits, labels), rtol=1e-6)
    for k in range(2):
        assert torch.allclose(rows[k].mean(), loss(logits[k], targets[k]), rtol=1e-6)


@pytest.mark.parametrize("name", SEVERAL)
def test_every_target_pulls_its_own_logit_and_extremes_stay_finite(name):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 90.0], [0.5, 0.1, -0.3]], requires_grad=True)
    for targets in (torch.zeros(3, 3), torch.ones(3, 3), torch.eye(3)):
        value = built(name)(logits, targets)
        slope = torch.autograd.grad(value, logits)[0]
        assert torch.isfinite(value)
        assert torch.isfinite(slope).all()
        assert ((slope[2] < 0) == (targets[2] > 0)).all()


@pytest.mark.parametrize("wrong", [{"power": -1.0}, {"cap": 0.5}, {"cap": math.inf}])
def test_arguments_outside_their_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="loss 'weighted_bce'"):
        WeightedBinaryCrossEntropy(np.array([1, 2]), **wrong)
