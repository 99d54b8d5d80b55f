"""Distillation from a given teacher, against a hand computation."""

import copy

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from fedimb.models.mlp import MLP
from fedimb.training.local import train_locally
from fedimb.training.objectives.taught import ScaledCrossEntropy, TeacherDistillation
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec


def test_a_fresh_model_learns_a_tenth_from_labels_and_the_rest_from_the_teacher():
    torch.manual_seed(0)
    teacher, ours = (MLP(n_classes=4, input_shape=(4,), hidden=[5]) for _ in range(2))
    theirs, said = copy.deepcopy(ours), copy.deepcopy(teacher)
    x, y = torch.randn(8, 4), torch.tensor([0, 1, 1, 0, 3, 0, 0, 1])
    spec = TrainSpec(
        "train",
        6,
        8,
        "sgd",
        0.3,
        0.0,
        0.0,
        ScaledCrossEntropy(0.1),
        Shuffle(),
        (TeacherDistillation(teacher, 0.9, 4.0),),
    )
    train_locally(ours, x, y, spec, torch.Generator().manual_seed(0))
    target = softmax(said(x).detach() / 4, dim=1)
    for _ in range(6):
        divergence = kl_div(log_softmax(theirs(x) / 4, dim=1), target, reduction="batchmean")
        objective = 0.1 * cross_entropy(theirs(x), y) + 0.9 * 16 * divergence
        gradients = torch.autograd.grad(objective, list(theirs.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
                parameter -= 0.3 * gradient
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, reference, atol=1e-5)
    for before, after in zip(said.parameters(), teacher.parameters(), strict=True):
        assert torch.equal(before, after)
