import copy

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from fedimb.errors import ConfigError
from fedimb.models.mlp import MLP
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.objectives.distil import Distil
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec


def drawn(seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MLP(n_classes=4, input_shape=(4,), hidden=[5])
    return model, torch.randn(8, 4, generator=generator), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])


def spec(*terms, steps=6):
    return TrainSpec("train", steps, 8, "sgd", 0.3, 0.0, 0.0, CrossEntropy(), Shuffle(), terms)


def descend(model, objective):
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(objective, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 0.3 * gradient


@pytest.mark.parametrize("absent_only", [False, True])
def test_training_minimises_cross_entropy_plus_the_divergence_from_the_received_model(absent_only):
    ours, x, y = drawn()
    theirs, teacher = copy.deepcopy(ours), copy.deepcopy(ours)
    classes = [2, 3] if absent_only else [0, 1, 2, 3]
    train_locally(ours, x, y, spec(Distil(0.7, 3.0, absent_only)), torch.Generator().manual_seed(0))
    for _ in range(6):
        target = softmax(teacher(x).detach()[:, classes] / 3, dim=1)
        divergence = kl_div(log_softmax(theirs(x)[:, classes] / 3, dim=1), target, reduction="batchmean")
        descend(theirs, cross_entropy(theirs(x), y) + 0.7 * 9 * divergence)
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, reference, atol=1e-5)


def test_at_the_received_weights_the_term_and_its_gradient_are_zero():
    model, x, y = drawn()
    term = Distil()
    term.on_rows(y)
    term.setup(model, list(model.parameters()))
    term.on_batch(x)
    features = model.features(x)
    value = term.loss(model, features, model.head(features), y)
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    assert all(g.abs().max() < 1e-6 for g in torch.autograd.grad(value, list(model.parameters())))


def test_a_client_that_distils_forgets_less_of_the_classes_it_lacks():
    lost = []
    for terms in ((), (Distil(4.0, absent_only=True),), (Distil(4.0),)):
        model, x, y = drawn()
        before = softmax(model(x).detach()[:, 2:], dim=1)
        train_locally(model, x, y, spec(*terms, steps=25), torch.Generator().manual_seed(0))
        after = log_softmax(model(x).detach()[:, 2:], dim=1)
        lost.append(float(kl_div(after, before, reduction="batchmean")))
    assert lost[1] < 0.5 * lost[0]
    assert lost[2] < 0.5 * lost[0]


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 1, 2, 3]])
def test_fewer_than_two_absent_classes_leave_nothing_to_distil(present):
    model, x, _ = drawn()
    y = torch.tensor((present * 3)[:8])
    plain = copy.deepcopy(model)
    train_locally(model, x, y, spec(Distil(5.0, absent_only=True)), torch.Generator().manual_seed(0))
    train_locally(plain, x, y, spec(), torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"weight": float("nan")}, {"temperature": 0.0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"'distil': .* must be"):
        Distil(**wrong)


@pytest.mark.parametrize(("balance", "factor"), [("entropy", 0.5), ("complement", 0.5)])
def test_the_weight_follows_how_even_the_classes_are(balance, factor):
    """Two of four classes, alike: half of the largest entropy."""
    z, t = torch.randn(8, 4), torch.randn(8, 4)
    found = []
    for how in ("none", balance):
        term = Distil(0.7, 3.0, balance=how)
        term.on_rows(torch.tensor([0, 1, 1, 0, 1, 0, 0, 1]))
        term._teacher, term._target = torch.nn.Identity(), t
        found.append(term.loss(None, z, z, torch.zeros(8, dtype=torch.int64)).item())
    assert found[1] == pytest.approx(factor * found[0])
