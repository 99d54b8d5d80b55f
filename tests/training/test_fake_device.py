"""Everything that trains, on fake tensors of a GPU that is not there: what mixes devices fails as it would on one.

PyTorch's FakeTensorMode computes shapes and devices without values. A generator cannot be fake: a mode checks that
every draw from the client's generator names the device that the generator would be on.
"""

import contextlib
import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.overrides import TorchFunctionMode

from fedimb import registry
from fedimb.config.validate import GIVEN
from fedimb.models.mlp import MLP
from fedimb.training.forward import forward_batched
from fedimb.training.local import train_locally
from fedimb.training.losses.base import RowLoss
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec
from fedimb.training.stacked import Work, train_stacked

SHAPE, CLASSES, ROWS = (3, 16, 16), 5, 12
VALUES = (DataDependentOutputException, DynamicOutputShapeException)
"""What fake tensors cannot do: an operation whose result depends on values."""
HAS_VALUES = {("sampler", "class_balanced"), ("sampler", "rotating"), ("sampler", "sqrt_freq")}
HAS_VALUES |= {("augmentation", "class_composite")}
"""Parts that look at values, and so are followed up to there only."""


class Draws(TorchFunctionMode):
    """Fails for a draw whose device is not the GPU: a CUDA generator cannot fill a tensor on the CPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if kwargs.get("generator") is not None and isinstance(result, torch.Tensor) and result.device.type != "cuda":
            raise RuntimeError(f"{func.__name__} draws on {result.device} from a generator that is on the GPU")
        return result


@contextlib.contextmanager
def gpu(monkeypatch):
    """Fake tensors inside the block; their values, where Python asks for one, are 0."""
    monkeypatch.setattr(torch.Tensor, "__float__", lambda self: 0.0)
    with FakeTensorMode(allow_non_fake_inputs=True), Draws():
        yield


def moved(module):
    """A module as ``.to("cuda")`` leaves it: what is registered is on the GPU, and nothing else."""
    module = copy.deepcopy(module)
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:
                fake = torch.empty(p.shape, dtype=p.dtype, device="cuda")
                part._parameters[name] = nn.Parameter(fake, requires_grad=p.requires_grad)
        for name, b in part._buffers.items():
            if b is not None:
                part._buffers[name] = torch.empty(b.shape, dtype=b.dtype, device="cuda")
    return module


def rows(shape=SHAPE):
    return torch.rand(ROWS, *shape, device="cuda"), torch.zeros(ROWS, dtype=torch.int64, device="cuda")


def spec(**changes):
    return TrainSpec("train", 2, 6, "sgd", 0.1, 0.9, 1e-4, CrossEntropy(), Shuffle()).change(**changes)


def mlp(shape=(4,)):
    return MLP(n_classes=CLASSES, input_shape=shape, hidden=[6])


def built_loss(name):
    counts = np.array([9, 5, 3, 1, 0])
    given = {"n_classes": CLASSES, "prior": counts, "local_counts": counts, "round": 9, "rounds": 9}
    return registry.build("loss", name, {key: given[key] for key in GIVEN["loss"]})


def trained(kind, name, monkeypatch, model, **changes):
    """Train two steps, and say up to where fake tensors can follow."""
    with gpu(monkeypatch):
        shape = SHAPE if "augmentations" in changes or not isinstance(model, MLP) else (4,)
        x, y = rows(shape)
        try:
            train_locally(moved(model), x, y, spec(**changes), torch.Generator())
        except VALUES:
            assert (kind, name) in HAS_VALUES, f"{kind} '{name}' asks for values: a GPU would wait for them"


@pytest.mark.parametrize("name", registry.names("loss"))
def test_every_loss(name, monkeypatch):
    loss = built_loss(name)
    with gpu(monkeypatch):
        loss = moved(loss)
        logits = torch.rand(ROWS, CLASSES, device="cuda", requires_grad=True)
        labels = torch.zeros(ROWS, dtype=torch.int64, device="cuda")
        more = {"features": torch.rand(ROWS, 6, device="cuda")} if getattr(loss, "needs_features", False) else {}
        value = loss.train()(logits, labels, **more)
        assert value.device.type == "cuda"
        torch.autograd.grad(value, logits)
        if isinstance(loss, RowLoss):
            _, gradient = loss.loss_and_grad(logits, labels, torch.ones(ROWS, device="cuda"))
            assert gradient.device.type == "cuda"


@pytest.mark.parametrize("name", registry.names("sampler"))
def test_every_sampler(name, monkeypatch):
    trained("sampler", name, monkeypatch, mlp(), sampler=registry.build("sampler", name))


@pytest.mark.parametrize("name", registry.names("augmentation"))
def test_every_augmentation(name, monkeypatch):
    given = {"input_shape": SHAPE} if "input_shape" in registry.parameters("augmentation", name) else {}
    augment = registry.build("augmentation", name, given)
    trained("augmentation", name, monkeypatch, mlp(SHAPE), augmentations=(augment,))


@pytest.mark.parametrize("name", registry.names("objective"))
def test_every_objective(name, monkeypatch):
    needed = {"mu": 0.1, "alpha": 0.1, "weight": 0.5}
    wanted = {k for k, p in registry.parameters("objective", name).items() if p.default is p.empty}
    objective = registry.build("objective", name, **{key: needed[key] for key in wanted})
    trained("objective", name, monkeypatch, mlp(), objectives=(objective,))


@pytest.mark.parametrize("name", [n for n in registry.names("model") if n not in ("encoded", "cnn1d")])
def test_every_model(name, monkeypatch):
    wide = {"width": 4} if "width" in registry.parameters("model", name) else {}
    model = registry.build("model", name, {"n_classes": CLASSES, "input_shape": SHAPE}, **wide)
    trained("model", name, monkeypatch, model)
    with gpu(monkeypatch):
        features, logits = forward_batched(moved(model), rows()[0])
        assert {features.device.type, logits.device.type} == {"cuda"}


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}])
def test_a_stacked_step(changes, monkeypatch):
    with gpu(monkeypatch):
        works = [Work(*rows((4,)), spec(**changes), torch.Generator()) for _ in range(3)]
        with contextlib.suppress(*VALUES):  # the mean losses, at the very end, are read as numbers
            train_stacked(moved(mlp()), works)


def test_optimiser_settings(monkeypatch):
    for changes in ({"max_grad_norm": 1.0}, {"decay_exempt": ("bias",)}, {"optimizer": "adam"}):
        trained("optimizer", str(changes), monkeypatch, mlp(), **changes)


class PlainTensor(CrossEntropy):
    """The planted mistake: a tensor that is no buffer stays behind when the loss moves."""

    def __init__(self):
        super().__init__()
        self.margins = torch.ones(CLASSES)

    def rows(self, logits, labels):
        return super().rows(logits - self.margins, labels)

    def forward(self, logits, labels):
        return self.rows(logits, labels).mean()


class DrawsOnTheCpu(Shuffle):
    """Another: a draw that forgets the device."""

    def epoch(self, labels, generator):
        return torch.randperm(len(labels), generator=generator)


@pytest.mark.parametrize("planted", [{"loss": PlainTensor()}, {"sampler": DrawsOnTheCpu()}])
def test_a_planted_mistake_is_caught(planted, monkeypatch):
    with pytest.raises(RuntimeError, match=r"device|draws on cpu"):
        trained("planted", "", monkeypatch, mlp(), **planted)
