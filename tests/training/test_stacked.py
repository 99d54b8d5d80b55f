"""Many clients at once: each comes out as alone, and bit by bit the same whoever it is stacked with."""

import copy

import numpy as np
import pytest
import torch

from fedimb import registry
from fedimb.errors import FedimbError
from fedimb.training import stacked
from fedimb.training.local import train_locally
from fedimb.training.losses.balanced_softmax import BalancedSoftmax
from fedimb.training.losses.fedlc import FedLC
from fedimb.training.spec import TrainSpec
from fedimb.training.stacked import Work, train_stacked, why_model_not_stackable, why_spec_not_stackable

SIZES = (40, 3, 17, 1, 16, 33)


def mlp(**args):
    torch.manual_seed(0)
    return registry.build("model", "mlp", {"n_classes": 4, "input_shape": (6,)}, **({"hidden": [8]} | args))


def loss_of(name: str, counts: np.ndarray):
    given = {"n_classes": 4, "prior": counts, "local_counts": counts, "round": 1, "rounds": 2}
    return registry.build("loss", name, given)


def works(sizes=SIZES, shape=(6,), loss=None, sampler="shuffle", objectives=(), **settings):
    made = []
    for k, n in enumerate(sizes):
        rng = torch.Generator().manual_seed(100 + k)
        counts = torch.randint(1, 50, (4,), generator=rng).numpy()
        spec = TrainSpec(
            **{
                "view": "train", "steps": 2 * -(-n // 16), "batch_size": 16, "optimizer": "sgd", "lr": 0.2,
                "momentum": 0.0, "weight_decay": 0.0, "sampler": registry.build("sampler", sampler),
                "loss": (loss or BalancedSoftmax)(counts),
                "objectives": tuple(registry.build("objective", name, **args) for name, args in objectives),
            }
            | settings
        )  # fmt: skip
        x, y = torch.randn(n, *shape, generator=rng), torch.randint(0, 4, (n,), generator=rng)
        made.append(Work(x, y, spec, torch.Generator().manual_seed(k)))
    return made


def alone(model, work):
    model = copy.deepcopy(model)
    result = train_locally(model, work.x, work.y, work.spec, work.generator)
    return result, [p.detach() for p in model.parameters()]


def check(model, make, atol=1e-6):
    before = copy.deepcopy(model.state_dict())
    for (mine, weights), (theirs, expected) in zip(
        train_stacked(model, make()), [alone(model, w) for w in make()], strict=True
    ):
        assert (mine.steps, mine.examples) == (theirs.steps, theirs.examples)
        assert mine.loss == pytest.approx(theirs.loss, abs=1e-5, nan_ok=True)
        for a, b in zip(weights, expected, strict=True):
            torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), "the resident model stays as it is"


STACKABLE = [n for n in registry.names("loss") if registry.flags("loss", n).get("stackable")]


@pytest.mark.parametrize("name", STACKABLE)
def test_every_stackable_loss_gives_what_the_loop_gives(name):
    if "multiclass" not in registry.flags("loss", name).get("tasks", ("multiclass",)):
        pytest.skip("of several labels per row: see the test below")
    check(mlp(), lambda: works(loss=lambda counts: loss_of(name, counts)))


def test_eleven_losses_are_stackable():
    assert {"ce", "balanced_softmax", "fedlc", "focal", "ldam", "weighted_ce"} <= set(STACKABLE)
    assert len(STACKABLE) >= 11


@pytest.mark.parametrize("sampler", registry.names("sampler"))
def test_every_sampler_draws_what_it_draws_in_the_loop(sampler):
    check(mlp(), lambda: works(sampler=sampler))


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9, "weight_decay": 0.01},
        {"optimizer": "adam", "lr": 0.01},
        {"objectives": [("proximal", {"mu": 0.5})]},
        {"batch_size": 7},
        {"steps": 3},
    ],
    ids=str,
)
def test_settings(settings):
    check(mlp(), lambda: works(**settings))


@pytest.mark.parametrize(
    ("name", "args", "shape"),
    [
        ("logistic", {}, (6,)),
        ("mlp", {"hidden": []}, (2, 3)),
        ("mlp", {"head": "cosine"}, (6,)),
        ("cnn4conv", {"width": 4}, (1, 8, 8)),
    ],
)
def test_other_models_those_without_a_stacked_form_too(name, args, shape):
    torch.manual_seed(0)
    model = registry.build("model", name, {"n_classes": 4, "input_shape": shape}, **args)
    check(model, lambda: works(shape=shape, sizes=(20, 5, 9)), atol=1e-5)


def test_frozen_weights_stay_out():
    model = mlp(hidden=[8, 8])
    model.body[1].weight.requires_grad_(False)

    def make():
        return works(weight_decay=0.1)

    for (_, weights), work in zip(train_stacked(model, make()), make(), strict=True):
        own = copy.deepcopy(model)
        train_locally(own, work.x, work.y, work.spec, work.generator)
        expected = [p for p in own.parameters() if p.requires_grad]
        assert len(weights) == len(expected) == 5
        torch.testing.assert_close(weights[0], expected[0].detach())


def test_who_is_stacked_with_whom_changes_no_bit():
    together = train_stacked(mlp(), works())
    for group in ([0], [1, 3], [5, 2, 4]):
        chosen = works()
        for i, (result, weights) in zip(group, train_stacked(mlp(), [chosen[i] for i in group]), strict=True):
            assert result == together[i][0]
            assert all(torch.equal(a, b) for a, b in zip(weights, together[i][1], strict=True))


def test_a_small_budget_and_memory_that_runs_out_change_no_bit(monkeypatch):
    together = train_stacked(mlp(), works())
    real, stacks = stacked._train_stack, []

    def scarce(model, plans):
        stacks.append(len(plans))
        if len(plans) > 1:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes")
        return real(model, plans)

    monkeypatch.setattr(stacked, "_train_stack", scarce)
    pieces = train_stacked(mlp(), works())
    assert stacks.count(1) == len(SIZES) < len(stacks)
    monkeypatch.undo()
    for other in (pieces, train_stacked(mlp(), works(), budget=1)):
        assert [r for r, _ in other] == [r for r, _ in together]
        assert all(
            torch.equal(a, b)
            for (_, w), (_, v) in zip(other, together, strict=True)
            for a, b in zip(w, v, strict=False)
        )


def test_another_error_is_not_taken_for_memory(monkeypatch):
    def broken(model, plans):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(stacked, "_train_stack", broken)
    with pytest.raises(RuntimeError, match="multiplied"):
        train_stacked(mlp(), works())


def test_several_labels_per_row():
    def make():
        for work in works(loss=lambda counts: loss_of("bce", counts)):
            targets = torch.nn.functional.one_hot(work.y, 4).float()
            yield Work(work.x, targets, work.spec, work.generator, work.y)

    model = mlp()
    for (_, weights), work in zip(train_stacked(model, list(make())), make(), strict=True):
        own = copy.deepcopy(model)
        train_locally(own, work.x, work.y, work.spec, work.generator, work.primary)
        torch.testing.assert_close(weights, [p.detach() for p in own.parameters()], atol=1e-6, rtol=1e-5)


def test_clients_without_rows_or_steps_keep_the_weights():
    model = mlp()
    for result, weights in train_stacked(model, works(sizes=(0,)) + works(sizes=(5,), steps=0)):
        assert result.steps == 0
        assert np.isnan(result.loss)
        assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_a_sampler_that_chooses_nothing_is_named():
    class Nobody:
        def epoch(self, labels, generator):
            return torch.empty(0, dtype=torch.int64)

    with pytest.raises(FedimbError, match="sampler Nobody chose none of 5 rows"):
        train_stacked(mlp(), _with(Nobody()))


def _with(sampler):
    return [Work(w.x, w.y, w.spec.change(sampler=sampler), w.generator) for w in works(sizes=(5,))]


def test_what_cannot_be_stacked_is_told():
    spec = works(sizes=(5,))[0].spec
    assert why_spec_not_stackable(spec) is None
    assert why_model_not_stackable(mlp()) is None
    assert "Moon" in why_spec_not_stackable(spec.change(objectives=(registry.build("objective", "moon", mu=1.0),)))
    assert "augment" in why_spec_not_stackable(spec.change(augmentations=(lambda *a: a[0],)))
    assert "RowLoss" in why_spec_not_stackable(spec.change(loss=torch.nn.CrossEntropyLoss()))
    norm = registry.build("model", "cnn4conv", {"n_classes": 4, "input_shape": (1, 8, 8)}, width=4, norm="batch")
    assert "BatchNorm" in why_model_not_stackable(norm)
    assert "dropout" in why_model_not_stackable(torch.nn.Sequential(torch.nn.Dropout()))


def test_losses_with_other_settings_are_not_mixed():
    mixed = [Work(w.x, w.y, w.spec.change(loss=FedLC(4, tau=float(k % 2))), w.generator) for k, w in enumerate(works())]
    again = [Work(w.x, w.y, w.spec.change(loss=FedLC(4, tau=float(k % 2))), w.generator) for k, w in enumerate(works())]
    for (_, weights), work in zip(train_stacked(mlp(), mixed), again, strict=True):
        torch.testing.assert_close(weights, alone(mlp(), work)[1], atol=1e-6, rtol=1e-5)
