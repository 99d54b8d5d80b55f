"""Calibrated gradients of the head: the weights by hand, and what a step moves."""

import copy

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from torch.nn.functional import cross_entropy

from fedimb.contracts.class_incremental import STATE_OF_PHASE
from fedimb.errors import ConfigError
from fedimb.models.mlp import MLP
from fedimb.records import array_record
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.objectives.cfg_grad import CalibratedGradients, calibrated_weights
from fedimb.training.objectives.grad_reweight import GradientReweighting, class_weights
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

OLD = torch.tensor([True, True, False, False, False])
SUMS = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5])


def test_each_group_by_its_smallest_then_both_by_their_means():
    # class 4 is still to come: not among the j, nor in the mean of the new ones, (2 + 1) / 2 against (8 + 4) / 2
    present = torch.tensor([0, 1, 2, 3])
    assert calibrated_weights(SUMS, present, OLD).tolist() == [0.5 * 0.25, 0.25, 0.5 * 0.25, 0.25, 0.25]
    # gamma is of the new classes alone, and no factor is above 1
    assert calibrated_weights(SUMS, present, OLD, gamma=2.0).tolist() == [
        0.125,
        0.25,
        0.25,
        0.5,
        0.5,
    ]
    assert calibrated_weights(SUMS, present, OLD, gamma=9.0).tolist()[2:] == [0.5, 1.0, 1.0]


def test_where_new_classes_have_the_larger_gradients_old_ones_keep_theirs():
    found = calibrated_weights(torch.tensor([1.0, 2.0, 6.0, 3.0]), torch.arange(4), torch.tensor([1, 1, 0, 0]).bool())
    assert found.tolist() == [1.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize("old", [torch.zeros(5).bool(), torch.ones(5).bool()])
def test_with_one_group_it_is_gradient_reweighting(old):
    present = torch.tensor([0, 1, 2])
    torch.testing.assert_close(calibrated_weights(SUMS, present, old), class_weights(SUMS, present))


def test_a_client_without_rows_of_old_classes_calibrates_the_new_ones_alone():
    assert calibrated_weights(SUMS, torch.tensor([2, 3]), OLD).tolist() == [1.0, 1.0, 0.5, 1.0, 1.0]


def state(old):
    own = {"new": [2], "old": old, "memory": []}
    return RecordDict({STATE_OF_PHASE: array_record({key: np.array(ids, np.int64) for key, ids in own.items()})})


def stepped(model, x, y, objective):
    spec = TrainSpec("train", 1, len(y), "sgd", 0.3, 0.0, 0.0, CrossEntropy(), Shuffle(), (objective,))
    train_locally(model, x, y, spec, torch.Generator().manual_seed(0))
    return model


def test_a_step_moves_the_head_by_the_calibrated_gradient():
    torch.manual_seed(0)
    ours = MLP(n_classes=3, input_shape=(4,), hidden=[5])
    theirs = copy.deepcopy(ours)
    x, y = torch.randn(12, 4), torch.tensor([0] * 2 + [1] * 2 + [2] * 8)
    objective = CalibratedGradients(gamma=0.5)
    objective.receive(RecordDict(), state([0, 1]))
    stepped(ours, x, y, objective)
    weight, bias = torch.autograd.grad(cross_entropy(theirs(x), y), [theirs.head.weight, theirs.head.bias])
    size = weight.norm(dim=1)
    ratio = float(size[2] / size[:2].mean())
    factor = torch.cat([size[:2].min() / size[:2] * min(1.0, ratio), torch.tensor([min(1.0, 0.5 * ratio)])])
    moved = theirs.head.weight - 0.3 * factor[:, None] * weight, theirs.head.bias - 0.3 * factor * bias
    torch.testing.assert_close(ours.head.weight, moved[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.head.bias, moved[1], rtol=1e-5, atol=1e-6)


def test_in_the_first_phase_it_is_gradient_reweighting():
    torch.manual_seed(0)
    model = MLP(n_classes=3, input_shape=(4,), hidden=[5])
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    objective = CalibratedGradients()
    objective.receive(RecordDict(), state([]))
    one, other = (stepped(copy.deepcopy(model), x, y, each) for each in (objective, GradientReweighting()))
    for mine, reference in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=0)


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("inf")])
def test_values_out_of_range_are_refused(gamma):
    with pytest.raises(ConfigError, match="objective 'cfg_grad': gamma"):
        CalibratedGradients(gamma)
