"""A local step equals torch's own: Nesterov momentum, weight decay and its exemptions, clipping, label smoothing."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedimb.models.base import Classifier
from fedimb.models.mlp import MLP
from fedimb.training.local import optimizer_of, train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.losses.smoothing import smoothed
from fedimb.training.optim import decays
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec
from fedimb.training.stacked import Work, train_stacked, why_spec_not_stackable

ROWS, FEATURES, CLASSES, STEPS = 8, 4, 3, 5
EXACT = {"rtol": 0, "atol": 1e-12}


class Normed(Classifier):
    """A layer, a normalisation and a head."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(FEATURES, 6), nn.LayerNorm(6), nn.Linear(6, CLASSES)

    def features(self, x):
        return self.norm(self.first(x)).relu()


NAMES = {"norm": ("norm.weight", "norm.bias"), "bias": ("first.bias", "norm.bias", "head.bias", "body.1.bias")}
"""Parameters that each kind of exemption is of, written out."""

SGD = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "heavy ball": {"momentum": 0.9, "weight_decay": 0.1},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "nesterov and decay": {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    "no decay of norms": {"momentum": 0.9, "weight_decay": 0.3, "decay_exempt": ("norm",)},
    "no decay of biases": {"weight_decay": 0.3, "decay_exempt": ("bias",)},
    "both, nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.3, "decay_exempt": ("norm", "bias")},
    "adam": {"optimizer": "adam", "weight_decay": 0.3, "decay_exempt": ("bias",)},
}
ONE_BY_ONE = {
    "tight bound": {"max_grad_norm": 0.05},
    "loose bound": {"max_grad_norm": 50.0},
    "bound, nesterov, decay": {"max_grad_norm": 0.3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "smoothing": {"smoothing": 0.1},
    "everything": {
        "smoothing": 0.2,
        "max_grad_norm": 0.2,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.2,
        "decay_exempt": ("norm",),
    },
}
"""What is done for one client at a time only."""


def drawn(model, client=0):
    """Rows whose loss is far from 0, so that a step is long; and the model with weights of this test."""
    generator = torch.Generator().manual_seed(client)
    x = 3 * torch.randn(ROWS, FEATURES, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (ROWS,), generator=generator)
    weights = torch.Generator().manual_seed(9)
    model = model().double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=weights, dtype=torch.float64))
    return model, x, y


def spec_of(steps=STEPS, smoothing=0.0, **changes):
    loss = smoothed(CrossEntropy(), smoothing, "ce") if smoothing else CrossEntropy()
    plain = TrainSpec("train", steps, ROWS, "sgd", 0.05, 0.0, 0.0, loss, Shuffle())
    return plain.change(**changes)


def by_torch(model, x, y, steps=STEPS, smoothing=0.0, max_grad_norm=None, decay_exempt=(), **settings):
    """The same with torch.optim, clip_grad_norm_ and cross_entropy(label_smoothing=...)."""
    exempt = {name for kind in decay_exempt for name in NAMES[kind]}
    decay = settings.pop("weight_decay", 0.0)
    groups = [{"params": [p], "weight_decay": 0.0 if n in exempt else decay} for n, p in model.named_parameters()]
    optimizer = (
        torch.optim.Adam(groups, lr=0.05)
        if settings.pop("optimizer", "sgd") == "adam"
        else torch.optim.SGD(groups, lr=0.05, **settings)
    )
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(x), y, label_smoothing=smoothing).backward()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def mlp():
    return MLP(CLASSES, (FEATURES,), [6])


@pytest.mark.parametrize("settings", [*SGD.values(), *ONE_BY_ONE.values()], ids=[*SGD, *ONE_BY_ONE])
@pytest.mark.parametrize("kind", [mlp, Normed])
def test_a_clients_training_gives_torchs_weights(kind, settings):
    model, x, y = drawn(kind)
    right = by_torch(copy.deepcopy(model), x, y, **settings)
    started = [p.detach().clone() for p in model.parameters()]
    train_locally(model, x, y, spec_of(**settings), torch.Generator().manual_seed(0))
    for found, wanted, start in zip(model.parameters(), right, started, strict=True):
        torch.testing.assert_close(found.detach(), wanted, **EXACT)
        assert not torch.equal(start, wanted)


@pytest.mark.parametrize("settings", SGD.values(), ids=SGD)
@pytest.mark.parametrize("kind", [mlp, Normed])
def test_a_stack_gives_torchs_weights_for_clients_of_any_length(kind, settings):
    clients = {0: 5, 1: 2, 2: 5}
    model, _, _ = drawn(kind)
    works, right = [], []
    for client, steps in clients.items():
        _, x, y = drawn(kind, client)
        works.append(Work(x, y, spec_of(steps, **settings), torch.Generator().manual_seed(client)))
        right.append(by_torch(copy.deepcopy(model), x, y, steps, **settings))
    for (_, found), wanted in zip(train_stacked(model, works), right, strict=True):
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one.detach(), other, **EXACT)


@pytest.mark.parametrize("settings", ONE_BY_ONE.values(), ids=ONE_BY_ONE)
def test_what_a_stack_cannot_do_is_left_to_one_client_at_a_time(settings):
    assert why_spec_not_stackable(spec_of(**settings)) is not None


def test_an_optimizer_that_lives_on_is_torchs_that_lives_on():
    settings = SGD["nesterov and decay"]
    model, x, y = drawn(Normed)
    right = by_torch(copy.deepcopy(model), x, y, 2 * STEPS, **settings)
    spec = spec_of(**settings)
    optimizer = optimizer_of(model, spec)
    for seed in (0, 1):
        train_locally(model, x, y, spec, torch.Generator().manual_seed(seed), optimizer=optimizer)
    for found, wanted in zip(model.parameters(), right, strict=True):
        torch.testing.assert_close(found.detach(), wanted, **EXACT)


def test_the_reported_loss_is_the_mean_of_torchs_smoothed_loss():
    model, x, y = drawn(mlp)
    first = cross_entropy(model(x), y, label_smoothing=0.3)
    result = train_locally(model, x, y, spec_of(1, 0.3), torch.Generator().manual_seed(0))
    assert result.loss == pytest.approx(float(first.detach()), abs=1e-6)  # added up in float32


def test_every_kind_of_normalisation_is_exempt_and_nothing_else():
    layers = (
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.LayerNorm(4),
        nn.RMSNorm(4),
        nn.Linear(4, 2),
    )
    model = nn.Sequential(*layers)
    norms = [True, True] + [False] * 7 + [True, True]
    assert decays(model, ("norm",)) == norms
    assert decays(model, ("bias",)) == [True, False] * 3 + [True, False, True, True, False]
    assert decays(model, ()) == [True] * 11
