import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.selection.queries.local_priors import (
    adaptive_model,
    balanced_positions,
    class_balance,
    mean_softmax,
    model_distance,
    switch_score,
)


def simplex(seed, n_classes=4):
    return torch.randn(n_classes, generator=torch.Generator().manual_seed(seed)).softmax(0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=25), st.integers(0, 20))
def test_balanced_rows_show_each_class_as_often_as_the_largest_and_every_row(labels, seed):
    labels = torch.tensor(labels, dtype=torch.int64)
    at = balanced_positions(labels, torch.Generator().manual_seed(seed))
    counts = labels.bincount(minlength=5)
    assert torch.equal(labels[at].bincount(minlength=5), (counts > 0) * counts.max())
    assert set(at.tolist()) == set(range(len(labels)))
    assert torch.equal(at, balanced_positions(labels, torch.Generator().manual_seed(seed)))


def test_rows_drawn_again_are_drawn_evenly():
    at = balanced_positions(torch.tensor([0] * 3002 + [1, 1]), torch.Generator().manual_seed(0))
    twice = at[at >= 3002].bincount()[3002:]
    assert twice.sum() == 3002
    assert abs(int(twice[0]) - 1501) < 110  # 4 standard deviations of a fair coin


def test_mean_softmax():
    logits = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    assert mean_softmax(logits).tolist() == pytest.approx([0.7, 0.3])
    assert mean_softmax(torch.zeros(0, 2)).isnan().all()


def test_distance_by_hand_and_its_ends():
    g, l = torch.tensor([0.6, 0.4, 0.0]), torch.tensor([0.2, 0.8, 0.0])  # noqa: E741
    assert model_distance(g, l) == pytest.approx((0.4 / 0.8 + 0.4 / 1.2) / 3)
    assert model_distance(g, g) == 0
    assert model_distance(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == 1
    assert math.isnan(model_distance(g * math.nan, l))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(0, 999))
def test_distance_is_symmetric_and_in_0_to_1(one, two):
    assert 0 <= model_distance(simplex(one), simplex(two)) <= 1
    assert model_distance(simplex(one), simplex(two)) == model_distance(simplex(two), simplex(one))


def test_class_balance_looks_at_classes_labelled_here_only():
    prior = torch.tensor([0.6, 0.3, 0.1])
    assert class_balance(prior, torch.tensor([0, 1, 1])) == pytest.approx(0.5)
    assert class_balance(prior, torch.tensor([2, 0])) == pytest.approx(1 / 6)
    assert class_balance(prior, torch.tensor([2])) == 1
    assert class_balance(torch.full((3,), 1 / 3), torch.tensor([0, 1, 2])) == 1
    assert math.isnan(class_balance(prior, torch.zeros(0, dtype=torch.int64)))


def test_the_switch():
    assert switch_score(0.2, 0.3) == pytest.approx(0.75)
    t, d, g = 0.5, 0.37, 0.81  # the released code's general form
    assert switch_score(d, g) == pytest.approx(1 - (1 - t) * (d + g) + (1 - 2 * t) * d * g)
    assert adaptive_model(0.25, 0.25) == "local"  # s = .75 exactly: not above
    assert adaptive_model(0.25, 0.2499) == "global"
    assert adaptive_model(0.9, 0.9) == "local"
    assert adaptive_model(0.9, 0.9, delta=0.05) == "global"
    assert adaptive_model(math.nan, 0.1) == adaptive_model(0.9, math.nan) == "global"
