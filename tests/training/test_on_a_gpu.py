"""Everything that trains or chooses rows, on a GPU that is not there: what mixes devices fails as it would on one.

Found by their registrations, so a new part is tested as soon as it is registered. What is and is not seen:
`pretended_gpu`.
"""

from typing import get_args

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from pretended_gpu import pretended_gpu
from small_runs import launch_in, words_of_methods

from fedimb import registry
from fedimb.config.validate import GIVEN
from fedimb.contracts.optimizer import SINCE as OF_FEDDYN
from fedimb.contracts.platform import STEP
from fedimb.contracts.variate import SINCE, VARIATE
from fedimb.models.base import parameters_of
from fedimb.models.heads import Head, build_head
from fedimb.models.mlp import MLP
from fedimb.records import array_record
from fedimb.testing.selection import question
from fedimb.training.calibrations.base import Outputs
from fedimb.training.forward import forward_batched
from fedimb.training.local import train_locally
from fedimb.training.losses.base import RowLoss
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.losses.smoothing import SmoothedLoss
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec
from fedimb.training.stacked import Work, train_stacked

IMAGE, TABLE, SIGNAL, CLASSES, ROWS = (3, 16, 16), (4,), (2, 32), 5, 12
COUNTS = np.array([5, 4, 2, 0, 1])
LABELS = np.repeat(np.arange(CLASSES), COUNTS)


@pytest.fixture
def gpu(monkeypatch):
    with pretended_gpu(monkeypatch) as mode:
        yield mode


def rows(shape=TABLE):
    drawn = torch.Generator().manual_seed(0)
    return torch.rand(ROWS, *shape, generator=drawn).to("cuda"), torch.from_numpy(LABELS).to("cuda")


def spec(**changes):
    return TrainSpec("train", 3, 6, "sgd", 0.1, 0.9, 1e-4, CrossEntropy(), Shuffle()).change(**changes)


def mlp(shape=TABLE):
    torch.manual_seed(0)
    return MLP(n_classes=CLASSES, input_shape=shape, hidden=[6]).to("cuda")


def generator():
    return torch.Generator("cuda").manual_seed(1)


def trained(model, shape=TABLE, **changes):
    result = train_locally(model, *rows(shape), spec(**changes), generator())
    assert result.steps == 3
    assert {p.device.type for p in model.parameters()} == {"cuda"}


def built_loss(name, local=COUNTS):
    given = {"n_classes": CLASSES, "prior": np.maximum(COUNTS, 1), "local_counts": local, "round": 9, "rounds": 9}
    given |= {"label_sets": np.ones((1, CLASSES), bool)}
    return registry.build("loss", name, {key: given[key] for key in GIVEN["loss"]})


@pytest.mark.parametrize("name", registry.names("loss"))
def test_every_loss(name, gpu):
    loss, (_, labels) = built_loss(name).to("cuda").train(), rows()
    logits = torch.rand(ROWS, CLASSES, device="cuda").requires_grad_()
    more = {"features": torch.rand(ROWS, 6, device="cuda")} if getattr(loss, "needs_features", False) else {}
    value = loss(logits, labels, **more)
    assert gpu.holds(value)
    assert gpu.holds(torch.autograd.grad(value, logits)[0])
    if isinstance(loss, RowLoss):
        _, gradient = loss.loss_and_grad(logits, labels, torch.ones(ROWS, device="cuda"))
        assert gpu.holds(gradient)
        SmoothedLoss(loss, 0.1).to("cuda")(logits, labels)


@pytest.mark.parametrize("name", registry.names("sampler"))
def test_every_sampler(name, gpu):
    order = registry.build("sampler", name).epoch(rows()[1], generator())
    assert gpu.holds(order)
    trained(mlp(), sampler=registry.build("sampler", name))


@pytest.mark.parametrize("name", registry.names("augmentation"))
def test_every_augmentation(name, gpu):
    shape = SIGNAL if name in ("magnitude_scaling", "time_mask", "time_shift") else IMAGE
    given = {"input_shape": shape} if "input_shape" in registry.parameters("augmentation", name) else {}
    trained(mlp(shape), shape, augmentations=(registry.build("augmentation", name, given),))


NEEDED = {"mu": 0.1, "alpha": 0.1, "weight": 0.5, "tail": 2, "pairs": [[0, 1]]}
"""Settings of objectives that have no default."""


@pytest.mark.parametrize("name", registry.names("objective"))
def test_every_objective_over_two_rounds(name, gpu, tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.zeros((5, *TABLE), np.float32))
    needed = NEEDED | {"path": str(tmp_path / "rows.npz")}
    wanted = {key for key, one in registry.parameters("objective", name).items() if one.default is one.empty}
    assert wanted <= set(needed), f"give NEEDED a value for what objective '{name}' needs: {wanted - set(needed)}"
    loss = registry.flags("objective", name).get("needs_loss", ("ce",))[0]
    variants = [{"absent_only": True}, {}] if name == "distil" else [{}]
    for settings in variants:
        state, model = RecordDict(), mlp()
        for _ in range(2):
            objective = registry.build("objective", name, **{key: needed[key] for key in wanted}, **settings)
            zeros = {key: np.zeros_like(value) for key, value in parameters_of(model).items()}
            content = RecordDict(
                {STEP: ConfigRecord({"model": "global"}), "config": ConfigRecord({SINCE: 1, OF_FEDDYN: 1})}
            )
            content[VARIATE.key] = array_record(zeros)
            objective.receive(content, state)
            if head := registry.flags("objective", name).get("needs_head"):
                model.head = build_head(head, 6, CLASSES).to("cuda")
            trained(model, loss=built_loss(loss).to("cuda"), objectives=(objective,))
            objective.keep(state)


@pytest.mark.parametrize("name", registry.names("model"))
def test_every_model(name, gpu):
    signals = dict.fromkeys(("cnn1d", "lstm", "cnn_lstm", "cnn_transformer"), SIGNAL)
    shape = (signals | {"logistic": TABLE, "mlp": TABLE, "encoded": TABLE}).get(name, IMAGE)
    # not 4: PyTorch 2.13's convolutions corrupt memory in resnet8's backward pass on a CPU then, without the mode too
    small = {"width": 16} if "width" in registry.parameters("model", name) else {}
    model = registry.build("model", name, {"n_classes": CLASSES, "input_shape": shape}, **small).to("cuda")
    trained(model, shape)
    assert all(map(gpu.holds, forward_batched(model, rows(shape)[0])))


@pytest.mark.parametrize("kind", [kind for kind in get_args(Head) if kind != "linear"])
def test_every_head(kind, gpu):
    model = mlp()
    model.head = build_head(kind, 6, CLASSES).to("cuda")
    trained(model)


@pytest.mark.parametrize("name", registry.names("calibration"))
def test_every_calibration(name, gpu):
    features, logits = forward_batched(model := mlp(), rows()[0])
    given = {"prior": np.maximum(COUNTS, 1), "minority": (4,), "seed": 0}
    known = {key: value for key, value in given.items() if key in registry.parameters("calibration", name)}
    calibration = registry.build("calibration", name, known)
    head = model.head.weight.detach(), model.head.bias.detach()
    assert gpu.holds(calibration.adjust(Outputs(features, logits, *head, np.maximum(COUNTS, 1))))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("loss", ["ce", "fedrs", "focal"])
@pytest.mark.parametrize("dense", [True, False])
def test_a_stacked_step(optimizer, loss, dense, gpu):
    model = mlp() if dense else registry.build("model", "cnn1d", {"n_classes": CLASSES, "input_shape": SIGNAL}, width=4)
    shape = TABLE if dense else SIGNAL
    works = []
    for client, steps in enumerate((3, 5)):
        own = built_loss(loss, np.roll(COUNTS, client)).to("cuda")
        objectives = (registry.build("objective", "proximal", mu=0.1),)
        changed = spec(steps=steps, loss=own, optimizer=optimizer, nesterov=optimizer == "sgd", objectives=objectives)
        works.append(Work(*rows(shape), changed, generator()))
    for _, weights in train_stacked(model.to("cuda"), works, 2**28):
        assert all(map(gpu.holds, weights))


def test_optimiser_settings(gpu):
    for changes in ({"max_grad_norm": 0.1}, {"decay_exempt": ("bias",)}, {"optimizer": "adam"}, {"nesterov": True}):
        trained(mlp(), **changes)


@pytest.mark.parametrize("name", registry.names("query"))
def test_every_query_rule_chooses_where_its_input_is(name, gpu):
    """Clients copy a model's outputs to the CPU for it: see the run of strategy active below."""
    chosen = registry.build("query", name).select(question([12, 5, 3, 1], [3, 2, 1, 1], 6))
    assert not gpu.holds(chosen)


@pytest.mark.parametrize("name", registry.names("strategy"))
def test_every_method(name, gpu, tmp_path):
    words = [*words_of_methods(name), "rounds=2", "engine.device=cuda", "clients.count=3"]
    assert launch_in(tmp_path, *words).rows


class PlainTensor(CrossEntropy):
    """The planted mistake: a tensor that is no buffer stays behind when the loss moves."""

    def __init__(self):
        super().__init__()
        self.margins = torch.ones(CLASSES)

    def forward(self, logits, labels):
        return super().forward(logits - self.margins, labels)


class Ramp(CrossEntropy):
    """Another: a range without a device, indexed by labels that have one."""

    def forward(self, logits, labels):
        return (super().rows(logits, labels) * torch.arange(CLASSES)[labels]).mean()


class DrawsOnTheCpu(Shuffle):
    """Another: a draw that forgets the device."""

    def epoch(self, labels, generator):
        return torch.randperm(len(labels), generator=generator)


@pytest.mark.parametrize(
    ("planted", "why"),
    [
        ({"loss": PlainTensor}, "expected all tensors on the same device, but found cuda:0 and cpu"),
        ({"loss": Ramp}, "indices should be on the same device as the indexed tensor"),
        ({"sampler": DrawsOnTheCpu}, "device type for generator of randperm"),
    ],
)
def test_a_planted_mistake_is_caught(planted, why, gpu):
    with pytest.raises(RuntimeError, match=why):
        trained(mlp(), **{key: made().to("cuda") if key == "loss" else made() for key, made in planted.items()})


def test_without_the_gpu_the_planted_mistakes_train():
    for loss in (PlainTensor(), Ramp()):
        x, y = torch.rand(ROWS, *TABLE), torch.from_numpy(LABELS)
        model = MLP(n_classes=CLASSES, input_shape=TABLE, hidden=[6])
        assert train_locally(model, x, y, spec(loss=loss), torch.Generator().manual_seed(0)).steps == 3
