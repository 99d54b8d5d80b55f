import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fedimb.errors import ConfigError
from fedimb.models.heads import CosineHead
from fedimb.training.losses.class_weights import effective_number_weights
from fedimb.training.losses.ldam import LDAM, reweighted


def draw(seed, n, classes, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator)


def row_losses(z, labels):
    """Cross-entropy of each row in float64 numpy."""
    z = z - z.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, 5_000), min_size=2, max_size=6).filter(any),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([1.0, 30.0]),
    st.sampled_from([1.0, 16.0]),
    st.booleans(),
    st.integers(1, 9),
)
def test_it_is_the_loss_of_cao_et_al_on_cosines(counts, max_margin, scale, head_scale, late, n):
    logits, labels = draw(n, n, len(counts), scale=0.4 * head_scale)
    size = np.array([c or min(x for x in counts if x) for c in counts], dtype=float)
    margins = size**-0.25
    margins *= max_margin / margins.max()
    z, y = logits.double().numpy() / head_scale, labels.numpy()
    z[np.arange(n), y] -= margins[y]
    weights = (1 - 0.99) / (1 - 0.99**size) if late else np.ones(len(size))
    weights /= weights[np.array(counts) > 0].mean()
    expected = (weights[y] * row_losses(scale * z, y)).mean()
    loss = LDAM(np.array(counts), max_margin, scale, head_scale, beta=0.99, round=9 if late else 8, rounds=10)
    assert float(loss(logits, labels)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_by_hand():
    # counts 16 and 1: margins 1/4 and 1/2. Cosines 1/2 and 0, label 1 scaled by 2: logits 1 and -1.
    loss = LDAM(np.array([16, 1]), max_margin=0.5, scale=2.0, head_scale=1.0)
    assert loss.margins.tolist() == [0.25, 0.5]
    assert float(loss(torch.tensor([[0.5, 0.0]]), torch.tensor([1]))) == pytest.approx(
        math.log(1 + math.e**2), rel=1e-6
    )


def test_without_margin_scale_and_weights_it_is_cross_entropy():
    logits, labels = draw(0, 20, 4)
    loss = LDAM(np.array([90, 9, 1, 0]), max_margin=0.0, scale=1.0, head_scale=1.0, drw_start=1.0, round=10, rounds=10)
    assert torch.allclose(loss(logits, labels), cross_entropy(logits, labels), atol=1e-6)


def test_on_the_cosine_head_the_margin_is_one_of_cosines():
    head, loss = CosineHead(2, 2), LDAM(np.array([16, 1]))
    torch.nn.init.eye_(head.weight)
    features = 7 * torch.tensor([[0.6, 0.8]])  # cosines .6 and .8, whatever the length
    expected = math.log(1 + math.exp(30 * (0.6 - (0.8 - 0.5))))
    assert loss(head(features), torch.tensor([1])).item() == pytest.approx(expected, rel=1e-5)


def test_an_absent_class_has_the_margin_and_the_weight_of_the_rarest():
    loss = LDAM(np.array([90, 9, 0]), drw_start=0.0, beta=0.99)
    assert loss.margins[1] == loss.margins[2] == 0.5
    assert loss.weights[1] == loss.weights[2] > loss.weights[0]


@pytest.mark.parametrize(
    ("rounds", "start", "first"),
    [(10, 0.8, 9), (200, 0.8, 161), (10, 0.0, 1), (10, 1.0, None), (3, 0.5, 3), (100, 0.55, 56), (1, 0.8, None)],
)
def test_weights_set_in_at_their_round(rounds, start, first):
    counts = np.array([90, 9, 1])
    weighted = [r for r in range(1, rounds + 1) if reweighted(r, rounds, start)]
    assert weighted == ([] if first is None else list(range(first, rounds + 1)))
    for r in {1, rounds, first or rounds, max(1, (first or 2) - 1)}:
        weights = LDAM(counts, drw_start=start, round=r, rounds=rounds).weights
        expected = effective_number_weights(counts, 0.9999) if r in weighted else torch.ones(3)
        assert torch.equal(weights, expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_margin": -0.1},
        {"scale": 0.0},
        {"scale": -1.0},
        {"head_scale": 0.0},
        {"drw_start": 1.1},
        {"beta": 1.0},
        {"beta": math.nan},
    ],
)
def test_arguments_outside_their_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"loss 'ldam': {next(iter(wrong))}="):
        LDAM(np.array([3, 1]), **wrong)


def test_without_counts_there_is_no_loss():
    with pytest.raises(ValueError, match="class counts"):
        LDAM(np.zeros(3))
