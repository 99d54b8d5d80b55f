"""KAFAL's training half: against a hand computation, and its mixtures against scipy's Beta(2, 2)."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from torch.nn.functional import cross_entropy

from fedimb.errors import ConfigError
from fedimb.models.mlp import MLP
from fedimb.training.local import train_locally
from fedimb.training.losses.base import AdjustedCrossEntropy
from fedimb.training.objectives.compensation import Compensation, class_weights, mixture
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

COUNTS = torch.tensor([6, 2, 0, 0])


def drawn():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MLP(n_classes=4, input_shape=(4,), hidden=[5])
    x, pool = torch.randn(8, 4, generator=generator), torch.randn(9, 4, generator=generator)
    return model, x, torch.tensor([0, 1, 0, 0, 1, 0, 0, 0]), pool


def test_mixtures_are_beta_2_2():
    generator = torch.Generator().manual_seed(0)
    values = np.array([float(mixture(generator)) for _ in range(2000)])
    assert kstest(values, beta(2, 2).cdf).pvalue > 0.01
    assert kstest(values, beta(1, 1).cdf).pvalue < 1e-6


def test_classes_weigh_inversely_to_their_labels_and_one_on_average():
    weights = class_weights(COUNTS)
    assert weights[1] / weights[0] == pytest.approx(3)
    assert weights[2] / weights[0] == pytest.approx(6)  # a class without labels counts as one label
    assert float(weights.mean()) == pytest.approx(1)
    assert class_weights(torch.zeros(3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_training_minimises_balanced_softmax_plus_the_weighted_divergence_on_mixed_rows(temperature):
    ours, x, y, pool = drawn()
    theirs, teacher = copy.deepcopy(ours), copy.deepcopy(ours)
    shift = COUNTS.clamp_min(1).log()
    term = Compensation(pool, COUNTS, torch.Generator().manual_seed(7), 0.7, temperature)
    spec = TrainSpec("train", 5, 8, "sgd", 0.3, 0.0, 0.0, AdjustedCrossEntropy(shift), Shuffle(), (term,))
    train_locally(ours, x, y, spec, torch.Generator().manual_seed(0))

    generator, parameters = torch.Generator().manual_seed(7), list(theirs.parameters())
    inverse = [1 / 6, 1 / 2, 1, 1]
    weights = [w * 4 / sum(inverse) for w in inverse]
    for _ in range(5):
        pairs = torch.randint(9, (2, 8), generator=generator)
        share = sorted(torch.rand(3, generator=generator).tolist())[1]
        mixed = share * pool[pairs[0]] + (1 - share) * pool[pairs[1]]
        p = torch.softmax(teacher(mixed).detach() / temperature, 1)
        q = torch.softmax(theirs(mixed) / temperature, 1)
        divergence = 0.0
        for i in range(8):
            weight = sum(weights[c] * float(p[i, c]) for c in range(4))
            divergence = divergence + weight * sum(p[i, c] * torch.log(p[i, c] / q[i, c]) for c in range(4)) / 8
        objective = cross_entropy(theirs(x) + shift, y) + 0.7 * temperature**2 * divergence
        with torch.no_grad():
            for parameter, gradient in zip(parameters, torch.autograd.grad(objective, parameters), strict=True):
                parameter -= 0.3 * gradient
    for mine, reference in zip(ours.parameters(), parameters, strict=True):
        assert torch.allclose(mine, reference, atol=1e-5)
    assert not torch.allclose(next(iter(ours.parameters())), next(iter(teacher.parameters())), atol=1e-3)


def test_the_received_model_is_where_the_divergence_is_least():
    model, x, y, pool = drawn()
    term = Compensation(pool, COUNTS, torch.Generator().manual_seed(0))
    term.setup(model, list(model.parameters()))
    term.on_batch(x)
    value = term.loss(model, model.features(x), model(x), y)
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    assert all(g.abs().max() < 1e-6 for g in torch.autograd.grad(value, list(model.parameters())))


@pytest.mark.parametrize(("rows", "weight"), [(0, 1.0), (9, 0.0)])
def test_without_unlabelled_rows_or_weight_there_is_no_term(rows, weight):
    model, x, y, pool = drawn()
    term = Compensation(pool[:rows], COUNTS, torch.Generator(), weight)
    term.setup(model, list(model.parameters()))
    term.on_batch(x)
    assert term.loss(model, model.features(x), model(x), y) is None


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"temperature": 0.0}, {"floor": 0.0}, {"weight": float("nan")}])
def test_a_value_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Compensation(torch.zeros(1, 4), COUNTS, torch.Generator(), **wrong)
