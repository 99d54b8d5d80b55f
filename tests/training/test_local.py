"""Local training does torch's own steps, and calls losses and terms as they are promised to be called."""

import numpy as np
import pytest
import torch
from local_training import Normed, Recorded, fresh, generator, rows, spec, weights
from torch import nn
from torch.nn.functional import cross_entropy

from fedimb.models.mlp import MLP
from fedimb.training.forward import forward_batched
from fedimb.training.local import optimizer_of, train_locally
from fedimb.training.objectives.base import LocalObjective


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_training_is_torchs_own_step_by_step(name, momentum, decay):
    x, y = rows(10)
    sampler = Recorded()
    ours, theirs = fresh(), fresh()
    result = train_locally(
        ours, x, y, spec(sampler=sampler, optimizer=name, momentum=momentum, weight_decay=decay), generator()
    )
    if name == "sgd":
        optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=momentum, weight_decay=decay)
    else:
        optimizer = torch.optim.Adam(theirs.parameters(), lr=0.1, weight_decay=decay)
    losses = []
    for batch in [b for order in sampler.orders for b in order.split(4)][:7]:
        optimizer.zero_grad()
        loss = cross_entropy(theirs(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert torch.allclose(weights(ours), weights(theirs), atol=1e-6)
    assert result.loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert (result.steps, result.examples) == (7, 10)


def test_same_generator_same_bits_and_another_differs():
    x, y = rows(11)
    models = [fresh(), fresh(), fresh()]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train_locally(model, x, y, spec(momentum=0.9), generator(seed))
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


@pytest.mark.parametrize("kind", [MLP, Normed])
def test_an_empty_view_trains_nothing(kind):
    x, y = rows(0)
    model = fresh(kind)
    before = weights(model)
    result = train_locally(model, x, y, spec(), generator())
    assert (result.steps, result.examples, result.records) == (0, 0, {})
    assert np.isnan(result.loss)
    assert torch.equal(before, weights(model))


def test_no_steps_train_nothing():
    x, y = rows(5)
    model = fresh()
    before = weights(model)
    assert train_locally(model, x, y, spec(steps=0), generator()).steps == 0
    assert torch.equal(before, weights(model))


class Noting(LocalObjective):
    def __init__(self, name, log, extra=None):
        self.name, self.log, self.extra = name, log, extra

    def setup(self, model, parameters):
        self.log.append(f"{self.name} setup {len(parameters)}")

    def loss(self, model, features, logits, labels):
        self.log.append(f"{self.name} loss {tuple(features.shape)} {tuple(logits.shape)} {tuple(labels.shape)}")
        return None if self.extra is None else self.extra(model)

    def on_gradients(self, parameters, gradients):
        assert [p.shape for p in parameters] == [g.shape for g in gradients]
        self.log.append(f"{self.name} gradients")

    def after(self, model, steps):
        self.log.append(f"{self.name} after {steps}")
        return {f"x.{self.name}": {"steps": np.array(steps)}}


def test_terms_are_called_in_order_and_send_their_records():
    x, y = rows(4)
    log = []
    result = train_locally(fresh(), x, y, spec(steps=1, objectives=(Noting("a", log), Noting("b", log))), generator())
    per_step = "loss (4, 5) (4, 3) (4,)"
    assert log == [
        "a setup 4",
        "b setup 4",
        f"a {per_step}",
        f"b {per_step}",
        "a gradients",
        "b gradients",
        "a after 1",
        "b after 1",
    ]
    assert {key: int(arrays["steps"]) for key, arrays in result.records.items()} == {"x.a": 1, "x.b": 1}


def test_a_terms_loss_is_minimised_and_left_out_of_the_reported_loss():
    x, y = rows(12)
    decay = Noting("l2", [], lambda model: 0.05 * sum((p**2).sum() for p in model.parameters()))
    ours, theirs = fresh(), fresh()
    train_locally(ours, x, y, spec(objectives=(decay,)), generator())
    train_locally(theirs, x, y, spec(weight_decay=0.1), generator())
    assert torch.allclose(weights(ours), weights(theirs), atol=1e-6)
    start = train_locally(fresh(), x, y, spec(steps=1, batch_size=12, objectives=(decay,)), generator()).loss
    assert start == pytest.approx(float(cross_entropy(fresh()(x), y).detach()), abs=1e-6)


class Scaled(nn.Module):
    """A loss with two parameters of its own, one of them never used, that sees the features."""

    needs_features = True

    def __init__(self):
        super().__init__()
        self.scale, self.unused = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(2))
        self.seen = []

    def forward(self, logits, labels, features):
        self.seen.append(features.shape)
        return cross_entropy(logits * self.scale, labels) + 0.01 * features.pow(2).mean()


def test_a_losss_own_parameters_are_trained_and_it_may_see_features():
    x, y = rows(12)
    ours, theirs, mine, reference = fresh(), fresh(), Scaled(), Scaled()
    sampler = Recorded()
    train_locally(ours, x, y, spec(loss=mine, momentum=0.9, sampler=sampler), generator())
    optimizer = torch.optim.SGD([*theirs.parameters(), reference.scale], lr=0.1, momentum=0.9)
    for batch in [b for order in sampler.orders for b in order.split(4)][:7]:
        optimizer.zero_grad()
        features = theirs.features(x[batch])
        reference(theirs.head(features), y[batch], features).backward()
        optimizer.step()
    assert mine.scale.item() != 1.0
    assert mine.scale.item() == pytest.approx(reference.scale.item(), abs=1e-6)
    assert torch.equal(mine.unused, torch.ones(2))
    assert torch.allclose(weights(ours), weights(theirs), atol=1e-6)
    assert set(mine.seen) == {(4, 5)}


def test_an_optimizer_goes_on_from_call_to_call_with_the_learning_rate_of_each():
    x, y = rows(8)  # two batches of 4 an epoch: one call for both epochs, or two calls, draw the same batches
    for name in ("sgd", "adam"):
        whole, parts = fresh(), fresh()
        local = spec(momentum=0.9, optimizer=name, steps=4)
        train_locally(whole, x, y, local, generator())
        optimizer, draws = optimizer_of(parts, local), generator()
        for _ in range(2):
            train_locally(parts, x, y, local.change(steps=2), draws, optimizer=optimizer)
        assert torch.equal(weights(whole), weights(parts))
        before = weights(parts)
        train_locally(parts, x, y, local.change(steps=2, lr=0.0), draws, optimizer=optimizer)
        assert torch.equal(weights(parts), before)
    with pytest.raises(ValueError, match="another model"):
        train_locally(fresh(), x, y, local, generator(), optimizer=optimizer)


def test_frozen_parameters_stay_as_they_are():
    x, y = rows(8)
    model = fresh()
    model.body[1].weight.requires_grad_(False)
    before = model.body[1].weight.clone()
    train_locally(model, x, y, spec(weight_decay=0.1), generator())
    assert torch.equal(model.body[1].weight, before)


def test_layers_run_in_training_mode_and_evaluation_does_not_touch_them():
    x, y = rows(8)
    model = fresh(Normed)
    model.eval()
    train_locally(model, x, y, spec(steps=2), generator())
    assert int(model.body[1].num_batches_tracked) == 2
    running = model.body[1].running_mean.clone()
    features, logits = forward_batched(model, x)
    assert torch.equal(model.body[1].running_mean, running)
    assert torch.allclose(logits, model(x), atol=1e-6)
    assert torch.allclose(features, model.features(x), atol=1e-6)
    assert not logits.requires_grad


def test_evaluating_no_rows_gives_no_rows_and_asks_no_layer():
    class Picky(Normed):
        def features(self, x):
            assert len(x), "an empty batch"
            return super().features(x)

    features, logits = forward_batched(Picky(), torch.zeros(0, 4))
    assert features.shape == (0, 5)
    assert logits.shape == (0, 3)
