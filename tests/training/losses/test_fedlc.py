import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fedimb import registry
from fedimb.config.combinations import Combination, refusal
from fedimb.errors import ConfigError
from fedimb.training.losses.fedlc import FedLC


def draw(seed, n, classes, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 9),
    st.lists(st.integers(0, 5_000), min_size=2, max_size=6),
    st.sampled_from([0.0, 0.1, 1.0, 3.0]),
    st.integers(0, 999),
)
def test_it_is_the_formula_with_1e_8_rows_of_an_absent_class(n, counts, tau, seed):
    logits, labels = draw(seed, n, len(counts))
    margins = tau * np.array([c or 1e-8 for c in counts]) ** -0.25
    z = logits.double().numpy() - margins
    z -= z.max(axis=1, keepdims=True)
    expected = (np.log(np.exp(z).sum(axis=1)) - z[np.arange(n), labels.numpy()]).mean()
    loss = FedLC(len(counts), tau, np.array(counts))
    assert float(loss(logits, labels)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_by_hand():
    # counts 1 and 16: margins 1 and 1/2; equal logits: log(1 + exp(+-1/2))
    loss, logits = FedLC(2, 1.0, np.array([1, 16])), torch.zeros(1, 2)
    assert loss.shift.tolist() == [-1.0, -0.5]
    assert float(loss(logits, torch.tensor([0]))) == pytest.approx(math.log(1 + math.exp(0.5)), rel=1e-6)
    assert float(loss(logits, torch.tensor([1]))) == pytest.approx(math.log(1 + math.exp(-0.5)), rel=1e-6)


def test_an_absent_class_is_masked():
    logits, labels = draw(1, 30, 4)
    labels = labels % 3
    logits.requires_grad_()
    value = FedLC(4, 1.0, np.array([20, 5, 5, 0]))(logits, labels)
    slope = torch.autograd.grad(value, logits)[0]
    assert slope[:, 3].abs().max() < 1e-30
    assert slope[:, :3].abs().max() > 1e-3
    three = FedLC(3, 1.0, np.array([20, 5, 5]))(logits[:, :3], labels)
    assert torch.allclose(value, three, atol=1e-6)


def test_equal_counts_tau_0_and_no_counts_are_cross_entropy():
    logits, labels = draw(2, 20, 5)
    plain = cross_entropy(logits, labels)
    for loss in (FedLC(5, 1.0, np.full(5, 7)), FedLC(5, 0.0, np.array([9, 0, 0, 1, 5])), FedLC(5)):
        assert torch.allclose(loss(logits, labels), plain, atol=1e-6)


def test_a_rarer_class_needs_a_larger_margin():
    margins = -FedLC(4, 1.0, np.array([100, 10, 1, 0])).shift
    assert (margins.diff() > 0).all()
    assert float(margins[3]) == pytest.approx(100.0)


@pytest.mark.parametrize("tau", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("counts", [[0, 3, 1], [0, 0, 0], [0, 0, 1]])
def test_extreme_logits_one_row_and_labels_of_absent_classes_stay_finite(tau, counts):
    loss = FedLC(3, tau, np.array(counts))
    for label in range(3):
        for z in ([1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]):
            logits = torch.tensor([z], requires_grad=True)
            value = loss(logits, torch.tensor([label]))
            assert torch.isfinite(value)
            assert torch.isfinite(torch.autograd.grad(value, logits)[0]).all()


def test_nothing_is_trained_or_sent():
    loss = FedLC(2, 1.0, np.array([3, 1]))
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}


@pytest.mark.parametrize("tau", [-0.1, math.inf, math.nan])
def test_a_tau_outside_its_range_is_refused(tau):
    with pytest.raises(ConfigError, match=r"loss 'fedlc': tau=.*at least 0"):
        FedLC(2, tau, np.array([3, 1]))


@pytest.mark.parametrize("counts", [[3, 1, 2], [3, -1], [3, math.nan]])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(ConfigError, match="one finite count >= 0 for each of 2 classes"):
        FedLC(2, 1.0, np.array(counts))


def test_it_needs_no_global_counts_and_goes_with_no_second_adjustment():
    assert registry.flags("loss", "fedlc")["uses_local_counts"] is True
    parts = (registry.get("loss", "fedlc"), registry.get("calibration", "la_post"))
    assert refusal(Combination(parts[:1], "none")) is None
    assert "double correction" in (refusal(Combination(parts, "clear_sum")) or "")
