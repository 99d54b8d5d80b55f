"""The distillation step: its losses by hand, whom a class is taken from, and that rows without weight teach nothing."""

import math

import pytest
import torch

from fedimb.models.mlp import MLP
from fedimb.training.distillation import LogitMatch, SoftTargets, balance_factor, consensus_of, distil
from fedimb.training.fusion import NEVER, Targets
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec


def test_entropy_reduction_sharpens_the_mean_of_probabilities_over_each_teachers_own_classes():
    logits = torch.tensor([[[0.0, math.log(3.0), 50.0]], [[math.log(4.0), 0.0, 0.0]]])
    annotated = torch.tensor([[True, True, False], [True, True, True]])
    found = consensus_of(logits, annotated, "entropy_reduction", 0.1)
    # The first says 1/4 and 3/4, the second 4/6, 1/6 and 1/6; of the third class only the second speaks.
    expected = torch.tensor([[(1 / 4 + 4 / 6) / 2, (3 / 4 + 1 / 6) / 2, 1 / 6]]) / 0.1
    torch.testing.assert_close(found, expected)


def test_soft_targets_are_the_weighted_divergence_over_known_classes():
    taught = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    known = torch.tensor([True, True, False])
    loss = SoftTargets(Targets(taught, torch.tensor([1.0, 3.0])), known, factor=2.0)
    logits = torch.tensor([[0.0, 0.0, 9.0], [0.0, math.log(3.0), 9.0]], requires_grad=True)
    value = loss(logits, torch.tensor([0, 1]))
    assert value.item() == pytest.approx(2.0 * (1 * 0.0 + 3 * math.log(4.0)) / 4)
    value.backward()
    assert (logits.grad[:, 2] == 0).all()  # what nobody annotates is neither raised nor lowered


def test_logits_are_matched_by_their_mean_absolute_difference():
    loss = LogitMatch(torch.tensor([[1.0, 2.0, NEVER]]), torch.ones(1), torch.tensor([True, True, False]))
    assert loss(torch.tensor([[0.0, 5.0, 1.0]]), torch.tensor([0])).item() == (1 + 3) / 2


def test_a_model_comes_near_to_what_it_is_taught_and_rows_without_weight_teach_nothing():
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    taught = torch.stack([x[:, 0], -x[:, 0]], dim=1)
    weights = torch.cat([torch.ones(20), torch.zeros(20)])
    taught[20:] *= -100  # would undo it
    loss = LogitMatch(taught, weights, torch.ones(2, dtype=torch.bool))
    torch.manual_seed(1)
    model = MLP(2, (3,), hidden=[16])
    spec = TrainSpec("", 200, 5, "adam", 0.01, 0.0, 0.0, loss, Shuffle())
    distil(model, x, loss, spec, torch.Generator().manual_seed(2))
    assert (model(x[:20]) - taught[:20]).abs().mean() < 0.2


def test_the_factor_follows_the_evenness_of_the_classes():
    even, one, none = torch.tensor([5, 5, 5]), torch.tensor([0, 7, 0]), torch.zeros(3, dtype=torch.int64)
    assert [balance_factor(counts, "entropy") for counts in (even, one, none)] == pytest.approx([1, 0, 0])
    assert [balance_factor(counts, "complement") for counts in (even, one, none)] == pytest.approx([0, 1, 1])
    assert balance_factor(one, "none") == 1
    assert balance_factor(torch.tensor([5, 5]), "entropy", classes=4) == pytest.approx(0.5)  # of four classes, two
