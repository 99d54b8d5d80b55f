"""Training a generator: what is decayed, what the average keeps, which checkpoints fit, which classes are too small."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedimb.errors import ConfigError, DataError, FedimbError
from fedimb.generation.base import Generator
from fedimb.generation.examples import Examples
from fedimb.generation.training import Training, floor_check, groups, train_generator
from tests.generation.generator_cases import SHORT, build, examples, same_bits, shape_of


class Mean(Generator):
    """One number that learns the mean of x: what training does to it can be computed by hand."""

    def __init__(self):
        super().__init__(2, 1, (1,))
        self.value = nn.Parameter(torch.zeros(1, 1))
        self.asked = []

    def draw_levels(self, n, generator):
        return torch.zeros(n)

    def _losses(self, z, y, d, levels, generator):
        self.asked.append((y.tolist(), d.tolist()))
        return (z - self.value).square().flatten(1).mean(1)


def data(counts=(30, 2)):
    y = torch.from_numpy(np.repeat(np.arange(2), counts))
    return Examples(y[:, None].float(), y, torch.zeros_like(y))


def test_class_and_domain_rows_biases_and_norms_are_not_decayed():
    model = build("table_flow")
    named = dict(model.named_parameters())
    decayed, spared = groups(model, 0.3)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    of = {id(p): name for name, p in named.items()}
    spared_names = {of[id(p)] for p in spared["params"]}
    assert {"net.class_embedding.weight", "net.domain_embedding.weight", "net.enter.bias"} <= spared_names
    assert {of[id(p)] for p in decayed["params"]} == {n for n, p in named.items() if p.ndim > 1} - spared_names
    assert len(spared_names) + len(decayed["params"]) == len(named)


def test_the_average_of_the_weights_is_what_remains():
    """Against a hand-written loop of the same updates; the gradient (below 1) is never clipped."""
    training = Training(steps=5, batch=3, lr=0.1, ema=0.6, warmup=2, weight_decay=0.5, drop=0.0, clip=1e9)
    one = Examples(torch.ones(4, 1), torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    model = Mean()
    model.set_scale(*(torch.tensor([v]) for v in (0.0, 1.0, 0.0, 1.0)))
    loss = train_generator(model, one, training, 0)
    value, average, m, v, losses = 0.0, 0.0, 0.0, 0.0, []
    for step in range(5):
        losses.append((1 - value) ** 2)
        lr = 0.1 * min(1, (step + 1) / 2) * 0.5 * (1 + math.cos(math.pi * step / 5))
        gradient = 2 * (value - 1)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        step_size = (m / (1 - 0.9 ** (step + 1))) / (math.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
        value = value * (1 - lr * 0.5) - lr * step_size
        decay = min(0.6, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    assert model.value.item() == pytest.approx(average, rel=1e-5)
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_batches_are_balanced_and_conditions_dropped_apart():
    model = Mean()
    train_generator(model, data(), Training(steps=40, batch=100, drop=0.25), 0)
    y, d = (np.array([row[i] for row in model.asked]).ravel() for i in range(2))
    assert np.mean(y == 2) == pytest.approx(0.25, abs=0.03)
    assert np.mean(d == 1) == pytest.approx(0.25, abs=0.03)
    assert np.mean((y == 2) & (d == 1)) == pytest.approx(0.0625, abs=0.02), "drawn apart"
    assert np.mean(y[y < 2] == 1) == pytest.approx(0.5, abs=0.04)
    rows = Mean()
    train_generator(rows, data(), Training(steps=40, batch=100, drop=0.0, balance="rows"), 0)
    y = np.array([row[0] for row in rows.asked]).ravel()
    assert np.mean(y == 1) == pytest.approx(2 / 32, abs=0.02)


def test_a_scale_that_is_there_is_kept():
    model = Mean()
    model.set_scale(*(torch.tensor([v]) for v in (5.0, 2.0, -1.0, 9.0)))
    train_generator(model, data(), SHORT, 0)
    assert (model.centre.item(), model.spread.item(), model.low.item(), model.high.item()) == (5, 2, -1, 9)


def test_what_is_not_trainable_is_left_alone(tmp_path):
    class Ready(Mean):
        trainable = False

    model = Ready()
    assert math.isnan(train_generator(model, data(), SHORT, 0))
    assert not model.asked


@pytest.mark.parametrize("change", ["seed", "lr", "rows", "weights"])
def test_the_checkpoint_of_another_training_is_refused(change, tmp_path):
    file, name = tmp_path / "g.safetensors", "table_flow"
    own, training = examples(shape_of(name)), SHORT

    def kill(n):
        if file.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_generator(build(name), own, training, 0, checkpoint=file, progress=kill)
    model = build(name, seed=1 if change == "weights" else 0)
    if change == "lr":
        training = replace(training, lr=0.5)
    if change == "rows":
        own = examples(shape_of(name), seed=1)
    with pytest.raises(ConfigError, match=r"g\.safetensors is the checkpoint of a generator with other"):
        train_generator(model, own, training, int(change == "seed"), checkpoint=file)
    assert file.exists()


def test_a_damaged_checkpoint_is_named(tmp_path):
    file = tmp_path / "g.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(FedimbError, match=r"g\.safetensors"):
        train_generator(build("table_flow"), examples((5,)), SHORT, 0, checkpoint=file)


def test_how_often_a_checkpoint_is_written_changes_nothing(tmp_path):
    models = [build("table_flow") for _ in range(2)]
    for model, every in zip(models, (1, 3), strict=True):
        train_generator(
            model, examples((5,)), replace(SHORT, checkpoint_every=every), 0, checkpoint=tmp_path / "g.safetensors"
        )
    assert same_bits(models[0].state_dict(), models[1].state_dict())


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"ema": 1.0},
        {"drop": 1.0},
        {"drop": -0.1},
        {"clip": 0.0},
        {"weight_decay": -1.0},
        {"warmup": -1},
        {"balance": "clas"},
        {"checkpoint_every": 0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Training(**wrong)


def test_small_classes_warn_then_are_refused_then_forced(caplog):
    names = ("a", "b", "c", "d")
    assert floor_check(np.array([50, 51, 0, 900]), names) == []
    assert caplog.text == ""
    assert floor_check(np.array([50, 49, 20, 0]), names) == []
    assert "'b' (49), 'c' (20); below 50" in caplog.text
    with pytest.raises(DataError, match=r"'a' \(1\), 'd' \(19\); below 20 .* force it"):
        floor_check(np.array([1, 50, 60, 19]), names)
    assert floor_check(np.array([1, 50, 60, 19]), names, force=True) == [0, 3]
    with pytest.raises(ConfigError, match="one count per class"):
        floor_check(np.array([1, 2]), names)
    with pytest.raises(ConfigError, match="refuse at most warn"):
        floor_check(np.array([1, 2, 3, 4]), names, warn=10, refuse=20)
