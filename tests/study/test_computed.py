"""Majority class and every client alone, against the same done step by step."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score
from small_runs import config

from fedimb.config.parts import build_model
from fedimb.data.prepare import prepare
from fedimb.data.views import to_tensors
from fedimb.errors import RunDiverged
from fedimb.seeds import Stream, torch_generator
from fedimb.study import computed
from fedimb.study.computed import compute
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.prior import log_prior
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

ALONE = ("rounds=4", "local.epochs=2", "local.batch_size=16")


def small(*words):
    return config("engine=inline", *words)


@pytest.fixture(scope="module")
def settings():
    return small(*ALONE)


@pytest.fixture(scope="module")
def federation(settings):
    return prepare(settings.data, settings.partition, settings.clients.count, settings.seed)


@pytest.fixture(scope="module")
def local(settings):
    return compute("local", settings)["rows"]


@pytest.fixture(scope="module")
def step_by_step(settings, federation):
    """(predictions on the test set [n], steps) of every client with rows, trained with `train_locally`; and labels."""
    test_x, test_y = to_tensors(federation.store, federation.test, federation.scaling)
    found = {}
    for k in range(federation.n_clients):
        x, y = federation.client(k).tensors("train")
        if len(y) == 0:
            continue
        model = build_model(settings, federation.n_classes, federation.input_shape)
        steps = 4 * 2 * math.ceil(len(y) / 16)
        lr = settings.local.lr
        spec = TrainSpec("train", steps, 16, "sgd", lr, 0.0, settings.local.weight_decay, CrossEntropy(), Shuffle())
        train_locally(model, x, y, spec, torch_generator(settings.seed, Stream.TRAIN, 0, k))
        model.eval()
        with torch.no_grad():
            found[k] = (model(test_x).argmax(dim=1).numpy(), steps)
    return found, test_y.numpy()


def test_the_majority_row_says_the_most_frequent_class_of_all(settings, federation):
    found = compute("majority", settings)
    row = found["rows"]["majority"]
    matrix, counts = np.array(row["matrix"]), federation.counts.sum(axis=0)
    most = int(counts.argmax())
    _, y = to_tensors(federation.store, federation.test, federation.scaling)
    expected = confusion_matrix(y, np.full(len(y), most), labels=range(federation.n_classes))
    assert np.array_equal(matrix, expected)
    assert row["scores"]["macro_recall"] == pytest.approx(1 / federation.n_classes)
    assert row["scores"]["minority_recall"] == 0.0
    assert found["train_counts"] == counts.tolist()
    assert found["minority"] == list(federation.minority)


def test_local_only_is_every_client_trained_by_itself(local, step_by_step, federation):
    clients, y = step_by_step
    macro = [recall_score(y, said, average="macro") for said, _ in clients.values()]
    assert local["local_mean"]["scores"]["macro_recall"] == pytest.approx(np.mean(macro), abs=1e-5)
    best = max(clients, key=lambda k: recall_score(y, clients[k][0], average="macro"))
    assert local["local_best"]["client"] == best
    assert local["local_best"]["scores"]["macro_recall"] == pytest.approx(max(macro), abs=1e-5)
    assert np.array_equal(local["local_best"]["matrix"], confusion_matrix(y, clients[best][0]))
    recall = np.mean([recall_score(y, said, average=None) for said, _ in clients.values()], axis=0)
    assert local["local_mean"]["recall"] == pytest.approx(recall.tolist(), abs=1e-5)
    assert local["local_mean"]["matrix"] is None


def test_local_only_makes_the_steps_of_the_federation(local, step_by_step, federation):
    clients, _ = step_by_step
    sizes = federation.train_sizes
    steps = sum(4 * 2 * math.ceil(n / 16) for n in sizes)
    assert local["local_mean"]["steps"] == steps == sum(own for _, own in clients.values())
    best = local["local_best"]["client"]
    assert local["local_best"]["steps"] == 4 * 2 * math.ceil(sizes[best] / 16)
    assert local["local_best"]["labels"] == sizes[best]
    assert local["local_mean"]["labels"] == sizes.sum()


def test_the_worst_client_alone_is_the_one_whose_own_model_serves_it_worst(local, step_by_step, federation):
    clients, y = step_by_step
    served = []
    for k, (said, _) in clients.items():
        share = federation.counts[k] / federation.counts[k].sum()
        served.append(float(share @ recall_score(y, said, average=None)))
    assert local["local_mean"]["scores"]["worst_client"] == pytest.approx(min(served), abs=1e-5)
    assert local["local_mean"]["scores"]["best_client"] == pytest.approx(max(served), abs=1e-5)


@pytest.mark.parametrize("words", [(), ("local.momentum=0.9",), ("loss=balanced_softmax",)])
def test_stacked_and_looped_training_agree(monkeypatch, words):
    settings = small("rounds=2", *words)
    stacked = compute("local", settings)["rows"]["local_mean"]
    monkeypatch.setattr(computed, "why_model_not_stackable", lambda model: "not here")
    looped = compute("local", settings)["rows"]["local_mean"]
    assert looped["scores"]["macro_recall"] == pytest.approx(stacked["scores"]["macro_recall"], abs=5e-3)
    assert looped["steps"] == stacked["steps"]


def test_no_client_sees_what_another_left_in_the_model(monkeypatch):
    """Buffers are a client's own: a model with BatchNorm starts every client afresh."""
    from fedimb.config import parts

    settings, seen = small("rounds=1", "clients.count=3"), []

    def with_norm(*args):
        model = parts.build_model(*args)
        model.norm, plain = torch.nn.BatchNorm1d(64), model.features
        model.features = lambda x: plain(model.norm(x.flatten(1)))
        return model

    def training(model, *args):
        seen.append((int(model.norm.num_batches_tracked), model.norm.running_mean.abs().max().item()))
        return train_locally(model, *args)

    monkeypatch.setattr(computed, "build_model", with_norm)
    monkeypatch.setattr(computed, "train_locally", training)
    compute("local", settings)
    assert seen == [(0, 0.0)] * 3


def test_resampled_rows_of_the_federation_are_the_clients_own_too(monkeypatch):
    """The prior of a loss counts them, and steps are those of the real rows."""
    seen = []
    monkeypatch.setattr(computed, "why_model_not_stackable", lambda model: "not here")
    monkeypatch.setattr(
        computed,
        "train_locally",
        lambda model, x, y, spec, *rest: (
            seen.append((np.bincount(y, minlength=3), spec.steps, spec.loss.shift))
            or train_locally(model, x, y, spec, *rest)
        ),
    )
    table = ("data=synthetic_table", "data.source.rows=300", "data.source.classes=3", "loss=balanced_softmax")
    settings = small("rounds=1", "local.epochs=1", "clients.count=2", "partition=iid", "resampler=smote", *table)
    federation = prepare(settings.data, settings.partition, 2, settings.seed)
    compute("local", settings)
    for k, (counts, steps, shift) in enumerate(seen):
        own = federation.counts[k]
        assert counts.tolist() == np.where(own > 1, own.max(), own).tolist()
        assert steps == math.ceil(own.sum() / settings.local.batch_size)
        assert torch.equal(shift, log_prior(counts))
        assert not torch.equal(shift, log_prior(own))


def test_augmentations_of_the_federation_are_the_clients_own_too(monkeypatch):
    seen = []
    monkeypatch.setattr(
        computed,
        "train_locally",
        lambda model, x, y, spec, *rest: (
            seen.append(len(spec.augmentations)) or train_locally(model, x, y, spec, *rest)
        ),
    )
    compute("local", small("rounds=1", "local.augmentation=[flip]", "clients.count=2"))
    assert seen == [1, 1]


def test_the_resampler_of_the_federation_is_the_clients_own_too():
    table = ("data=synthetic_table", "data.source.rows=400", "data.source.features=6", "rounds=1", "clients.count=2")
    plain, smote = small(*table), small(*table, "resampler=smote")
    federation = prepare(plain.data, plain.partition, 2, plain.seed)
    for k, counts in enumerate(federation.counts):
        real, work = (computed._work(one, federation, k) for one in (plain, smote))
        expected = np.where(counts > 1, counts.max(), counts)  # between two rows of a class there are more
        assert np.bincount(real.y, minlength=len(counts)).tolist() == counts.tolist() != expected.tolist()
        assert np.bincount(work.y, minlength=len(counts)).tolist() == expected.tolist()
        assert work.primary.tolist() == work.y.tolist()
        assert work.spec.steps == real.spec.steps


def test_a_client_without_rows_is_left_out(monkeypatch):
    settings = small("rounds=1", "clients.count=40", "partition.alpha=0.05")
    federation = prepare(settings.data, settings.partition, 40, settings.seed)
    empty = int((federation.train_sizes == 0).sum())
    assert empty > 0
    rows = compute("local", settings)["rows"]
    batch = settings.local.batch_size
    assert rows["local_mean"]["steps"] == sum(math.ceil(n / batch) for n in federation.train_sizes)
    assert math.isfinite(rows["local_mean"]["scores"]["macro_recall"])


def test_a_diverged_client_is_a_diverged_row():
    with pytest.raises(RunDiverged, match=r"lower local\.lr"):
        compute("local", small("local.lr=1e38"))


def test_computed_rows_survive_json(local):
    again = json.loads(json.dumps(local))
    assert again["local_best"]["scores"] == local["local_best"]["scores"]
