"""What every registered loss, sampler, calibration and model must keep to. A part added later is tested unasked."""

from importlib.resources import files

import numpy as np
import pytest
import torch
import yaml

from fedimb import registry
from fedimb.errors import FedimbError
from fedimb.models.base import Classifier, buffers_of, load_into, parameters_of
from fedimb.training.calibrations.base import Outputs
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

INPUT_SHAPES = [(12,), (8, 8), (1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32)]
WIDTH = 5

# Class counts of a client: rare, one sample, absent; two classes; only one class present.
COUNTS = {
    "tail": np.array([40, 6, 1, 0]),
    "two": np.array([9, 3]),
    "one_class": np.array([0, 7, 0]),
    "one_row": np.array([0, 0, 1]),
}


def part(kind, name, **given):
    """A part as its own YAML configures it; settings that come from elsewhere in a run are left at their defaults."""
    path = files("fedimb.configs") / kind / f"{name}.yaml"
    args = (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}
    args = {key: value for key, value in args.items() if key != "name" and "${" not in str(value)}
    return registry.build(kind, name, given, **args)


def every(kind):
    return pytest.mark.parametrize("name", registry.names(kind))


every_count = pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())


def labels_of(counts, seed=0):
    labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss_value(loss, logits, labels, features):
    return loss(logits, labels, features=features) if getattr(loss, "needs_features", False) else loss(logits, labels)


@pytest.mark.parametrize("kind", ["loss", "calibration"])
def test_flags_agree_with_what_the_part_asks_for(kind):
    for name in registry.names(kind):
        flags = registry.flags(kind, name)
        assert isinstance(flags["adjusts_logits"], bool), name
        assert isinstance(flags["needs_prior"], bool), name
        if kind == "loss" and "prior" in registry.parameters(kind, name):
            assert flags["needs_prior"], f"{name} takes the class counts and does not say so"


@every("loss")
@every_count
@pytest.mark.parametrize("scale", [0.0, 1.0, 60.0])
def test_losses_are_finite_scalars_with_finite_gradients(name, counts, scale):
    labels = labels_of(counts)
    loss = part("loss", name, n_classes=len(counts), prior=counts)
    loss.train()
    logits = normal(len(labels), len(counts), scale=scale).requires_grad_()
    features = normal(len(labels), WIDTH, seed=1).requires_grad_()
    value = loss_value(loss, logits, labels, features)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    wanted = [logits, features, *loss.parameters()]
    for gradient in torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True):
        assert torch.isfinite(gradient).all()


@every("loss")
def test_losses_lower_with_the_logit_of_the_label(name):
    counts = np.array([40, 6, 3])
    labels, logits, features = labels_of(counts), normal(49, 3).requires_grad_(), normal(49, WIDTH)
    value = loss_value(part("loss", name, n_classes=3, prior=counts), logits, labels, features)
    slope = torch.autograd.grad(value, logits)[0][torch.arange(49), labels].sum()
    assert slope < 0


@every("loss")
def test_losses_repeat_change_no_input_and_load_their_state_back(name):
    counts = COUNTS["tail"]
    labels, logits, features = labels_of(counts), normal(47, 4), normal(47, WIDTH)
    before = [t.clone() for t in (labels, logits, features)]
    one, two = (part("loss", name, n_classes=4, prior=counts) for _ in range(2))
    two.load_state_dict(one.state_dict())
    assert torch.equal(loss_value(one, logits, labels, features), loss_value(two, logits, labels, features))
    assert all(torch.equal(a, b) for a, b in zip(before, (labels, logits, features), strict=True))


@every("sampler")
@every_count
def test_samplers_give_positions_that_a_seed_repeats(name, counts):
    labels = labels_of(counts)
    before = labels.clone()
    orders = []
    for _ in range(2):
        sampler = part("sampler", name, n_classes=len(counts), prior=counts)
        generator = torch.Generator().manual_seed(3)
        orders.append([sampler.epoch(labels, generator) for _ in range(3)])
    for one, two in zip(*orders, strict=True):
        assert one.dtype == torch.int64
        assert one.ndim == 1
        assert len(one) >= 1
        assert 0 <= int(one.min()) <= int(one.max()) < len(labels)
        assert torch.equal(one, two)
    assert torch.equal(labels, before)


@every("sampler")
def test_samplers_show_every_class_held_within_some_epochs(name):
    counts = COUNTS["tail"]
    labels = labels_of(counts)
    sampler, generator = part("sampler", name, n_classes=4, prior=counts), torch.Generator().manual_seed(0)
    seen = torch.cat([sampler.epoch(labels, generator) for _ in range(30)])
    assert set(labels[seen].tolist()) == {0, 1, 2}


@every("calibration")
@every_count
@pytest.mark.parametrize("rows", [0, 1, 30])
@pytest.mark.parametrize("with_bias", [True, False])
def test_calibrations_return_finite_logits_and_change_no_input(name, counts, rows, with_bias):
    classes = len(counts)
    weight, bias = normal(classes, WIDTH, seed=1), normal(classes, seed=2) if with_bias else None
    features = normal(rows, WIDTH, seed=3)
    logits = features @ weight.T + (bias if bias is not None else 0)
    outputs = Outputs(features, logits, weight, bias, counts)
    before = [t.clone() for t in (features, logits, weight)]
    one, two = (part("calibration", name).adjust(outputs) for _ in range(2))
    assert one.shape == (rows, classes)
    assert one.dtype == torch.float32
    assert torch.isfinite(one).all()
    assert torch.equal(one, two)
    assert all(torch.equal(a, b) for a, b in zip(before, (features, logits, weight), strict=True))


@every("calibration")
def test_calibrations_that_need_no_prior_do_without(name):
    if registry.flags("calibration", name)["needs_prior"]:
        outputs = Outputs(normal(3, WIDTH), normal(3, 2), normal(2, WIDTH), None, None)
        with pytest.raises((ValueError, FedimbError), match="count"):
            part("calibration", name).adjust(outputs)
    else:
        outputs = Outputs(normal(3, WIDTH), normal(3, 2), normal(2, WIDTH), None, None)
        assert part("calibration", name).adjust(outputs).shape == (3, 2)


def built(name, n_classes=3, seed=0):
    """The model for the first input shape it takes; others it must refuse with one of fedimb's errors."""
    for shape in INPUT_SHAPES:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            try:
                return part("model", name, n_classes=n_classes, input_shape=shape), shape
            except FedimbError:
                continue
    pytest.fail(f"model '{name}' takes none of {INPUT_SHAPES}; add one it takes")


@every("model")
@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_models_have_features_and_a_linear_head_that_reads_them(name, n_classes):
    model, shape = built(name, n_classes)
    assert isinstance(model, Classifier)
    assert isinstance(model.head, torch.nn.Linear)
    model.eval()
    for rows in (1, 4):
        x = normal(rows, *shape)
        features, logits = model.features(x), model(x)
        assert features.shape == (rows, model.head.in_features)
        assert logits.shape == (rows, n_classes)
        assert logits.dtype == features.dtype == torch.float32
        assert torch.isfinite(logits).all()
        assert torch.allclose(model.head(features), logits, atol=1e-6)


@every("model")
def test_models_score_a_row_alone_as_among_others(name):
    model, shape = built(name)
    model.eval()
    x = normal(4, *shape)
    assert torch.allclose(model(x)[2:3], model(x[2:3]), atol=1e-5)


@every("model")
def test_models_are_drawn_from_the_seed_and_load_another_ones_weights(name):
    (one, shape), (same, _), (other, _) = built(name), built(name), built(name, seed=1)
    assert all(np.array_equal(v, parameters_of(same)[k]) for k, v in parameters_of(one).items())
    one.train()
    one(normal(4, *shape))  # so that buffers, if any, differ from a fresh model's
    load_into(other, {k: torch.from_numpy(v) for k, v in (parameters_of(one) | buffers_of(one)).items()})
    x = normal(5, *shape, seed=1)
    assert torch.equal(one.eval()(x), other.eval()(x))


@every("model")
def test_models_train_and_every_trainable_parameter_has_a_gradient(name):
    model, shape = built(name)
    x, y = normal(6, *shape), torch.tensor([0, 1, 2, 0, 1, 0])
    model.train()
    torch.nn.functional.cross_entropy(model(x), y).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
    model, _ = built(name)
    before = parameters_of(model)
    local = TrainSpec("train", 3, 3, "sgd", 0.1, 0.9, 0.0, CrossEntropy(), Shuffle())
    result = train_locally(model, x, y, local, torch.Generator().manual_seed(0))
    assert result.steps == 3
    assert np.isfinite(result.loss)
    assert any(not np.array_equal(v, before[k]) for k, v in parameters_of(model).items())
