"""Gradient reweighting of the head's rows, against autograd."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from fedimb.errors import ConfigError
from fedimb.models.mlp import MLP
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.objectives.grad_reweight import GradientReweighting, class_weights
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec


def model(classes=3, head="linear"):
    torch.manual_seed(0)
    return MLP(n_classes=classes, input_shape=(4,), hidden=[5], head=head)


def train(net, x, y, objectives, steps=4, momentum=0.0):
    spec = TrainSpec("train", steps, len(y), "sgd", 0.3, momentum, 0.0, CrossEntropy(), Shuffle(), objectives)
    train_locally(net, x, y, spec, torch.Generator().manual_seed(0))
    return net


def test_rows_of_the_head_move_by_the_smallest_accumulated_gradient_over_their_own():
    ours = model()
    theirs = copy.deepcopy(ours)
    x, y = torch.randn(12, 4), torch.tensor([0] * 8 + [1] * 3 + [2])
    train(ours, x, y, (GradientReweighting(),))
    sums = torch.zeros(3)
    for _ in range(4):
        parameters = list(theirs.parameters())
        slopes = torch.autograd.grad(cross_entropy(theirs(x), y), parameters)
        gradients = {id(p): slope for p, slope in zip(parameters, slopes, strict=True)}
        sums += torch.stack([row.norm() for row in gradients[id(theirs.head.weight)]])
        weight = sums.min() / sums
        with torch.no_grad():
            for p in parameters:
                gradient = gradients[id(p)]
                if p is theirs.head.weight:
                    gradient = weight[:, None] * gradient
                if p is theirs.head.bias:
                    gradient = weight * gradient
                p -= 0.3 * gradient
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)


def test_equal_gradients_change_nothing():
    x, y = torch.randn(10, 4), torch.tensor([0, 1] * 5)  # of two classes the gradients are opposite, so equally long
    plain, weighted = (train(model(2), x, y, objectives, momentum=0.9) for objectives in ((), (GradientReweighting(),)))
    for one, other in zip(plain.parameters(), weighted.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_weights_by_hand():
    assert class_weights(torch.tensor([8.0, 2.0, 4.0]), torch.tensor([0, 1, 2])).tolist() == [0.25, 1.0, 0.5]
    # a class without rows neither sets the smallest size nor is sped up; no gradient at all changes nothing
    assert class_weights(torch.tensor([8.0, 2.0, 1.0]), torch.tensor([0, 1])).tolist() == [0.25, 1.0, 1.0]
    assert class_weights(torch.zeros(2), torch.tensor([0])).tolist() == [1.0, 1.0]


def test_a_head_whose_rows_are_fixed_is_refused():
    with pytest.raises(ConfigError, match=r"objective 'grad_reweight' .* use model.head=linear"):
        train(model(head="etf"), torch.randn(4, 4), torch.tensor([0, 1, 2, 0]), (GradientReweighting(),))
