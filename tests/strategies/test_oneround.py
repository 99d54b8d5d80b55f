"""Heads from class statistics as runs: masked and open, alone, after training, before it; what is refused."""

import json
import logging

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_runs import launch_in

import fedimb
from fedimb import registry
from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.contracts.oneround import OneRoundSettings
from fedimb.data.views import to_tensors
from fedimb.deploy.study_plan.outbound_records import Sizes, message_counts, outbound_records
from fedimb.deploy.study_plan.plan import _masked
from fedimb.discriminant.pooled import head_of
from fedimb.errors import ConfigError
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.stored import read_federation

ALONE = ("engine=inline", "model=logistic", "strategy=oneround", "clients.count=4", "strategy.oneround.min_count=1")


def weights(result):
    return load_file(result.folder / "artifacts" / "model" / "model.safetensors")


def facts(result):
    return json.loads((result.folder / "artifacts" / "oneround.json").read_text())


def recall(result):
    return json.loads((result.folder / "result.json").read_text())["rows"][0]["final"]["macro_recall"]


def same(one, other):
    return all(np.array_equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return launch_in(tmp_path_factory.mktemp("alone"), *ALONE)


def test_the_sum_under_masks_and_the_partition_change_no_bit(tmp_path, alone):
    """Equal rows dealt to other clients, summed openly, give the model file that masked sums gave."""
    for word in ("clients.count=4", "partition=iid"):
        other = launch_in(tmp_path, *ALONE, "strategy.oneround.secure=false", word)
        assert same(weights(alone), weights(other))


def test_it_sends_what_it_declares_and_nothing_is_trained(alone):
    (line,) = [line["metrics"] for line in RunFolder(alone.folder).metrics()]
    width, classes = 64, 10
    sums = 8 * (classes + classes * width + width * (width + 1) // 2)
    held_out = 8 * (classes + 10 * classes + 10 * classes)
    assert line["comm/up_bytes/oneround_masked_counts"] == 4 * 8 * (2 * classes + 2)
    assert line["comm/up_bytes/oneround_masked_sums"] == 4 * sums
    assert line["comm/up_bytes/oneround_masked_held_out"] == 4 * held_out
    assert line.get("train/steps", 0) == 0
    found = facts(alone)
    assert found["left_out"] == {}
    assert found["rows"] == sum(found["classes"].values())
    assert 0 < found["held_out"]["macro_recall"] < 1
    assert recall(alone) > 0.8


def test_the_saved_model_predicts_what_the_run_scored(alone):
    model = fedimb.load_model(alone.folder)
    said = model.predict(np.zeros((2, *model.input_shape), np.uint8))
    assert np.isfinite(said.scores).all()


ALSO = (
    ("head=ncm",),
    ("head=ridge", "prior=data"),
    ("head=fed3r",),
    ("head=fedcgs", "prior=data"),
    ("head=fishermix", "draws=50"),
    ("shrinkage=oas", "prior=data"),
    ("head=nb", "model.head=diagonal"),
)


@pytest.mark.parametrize(
    "words",
    [
        ("head=ncm", "metric=cosine"),
        ("head=ridge",),
        ("head=fedcof", "secure=false"),
        ("head=qda", "model.head=quadratic"),
        ("shrinkage=0.5", "prior=deployment", "prevalence=[1,1,1,1,1,1,1,1,1,2]"),
        *(pytest.param(words, marks=pytest.mark.slow) for words in ALSO),
    ],
)
def test_every_head_runs(tmp_path, words):
    own = [word if word.startswith("model.") else f"strategy.oneround.{word}" for word in words]
    assert recall(launch_in(tmp_path, *ALONE, *own)) > 0.4


def test_a_class_below_the_minimum_is_never_predicted(tmp_path, caplog, alone):
    with caplog.at_level(logging.WARNING, "fedimb"):
        result = launch_in(tmp_path, *ALONE, "strategy.oneround.min_count=8", "strategy.oneround.shrinkage=0.5")
    left_out = facts(result)["left_out"]
    held = facts(alone)["classes"]
    assert left_out.keys() == {name for name, rows in held.items() if rows < 8}
    assert "never predicted" in caplog.text
    matrix = np.array(json.loads((result.folder / "result.json").read_text())["rows"][0]["confusion"])
    assert not matrix[:, [int(name) for name in left_out]].any()


def test_the_head_after_training_leaves_everything_below_it(tmp_path):
    words = ("engine=inline", "clients.count=4", "rounds=3")
    plain = launch_in(tmp_path, *words)
    after = launch_in(tmp_path, *words, "strategy=oneround", "strategy.oneround.use=post")
    before, found = weights(plain), weights(after)
    assert all(np.array_equal(before[name], found[name]) == (not name.startswith("head.")) for name in before)
    assert recall(after) > recall(plain)


def test_training_starts_from_the_head(tmp_path):
    words = (*ALONE, "strategy.oneround.use=init", "rounds=1", "local.lr=0.02", "calibration=la_post")
    started = launch_in(tmp_path, *words)
    assert facts(started)["prior"] == "data"
    assert facts(started)["temperature"] >= 1
    lines = [line["metrics"]["test/macro_recall"] for line in RunFolder(started.folder).metrics()]
    assert lines[0] > 0.6  # of the head itself


def test_with_noise_there_is_one_message_and_much_noise_leaves_nothing(tmp_path):
    words = (*ALONE, "strategy.oneround.epsilon=90", "strategy.oneround.clip=5", "strategy.oneround.min_count=5")
    result = launch_in(tmp_path, *words, "data.n_max=100", "data.imbalance_factor=5")
    (line,) = [line["metrics"] for line in RunFolder(result.folder).metrics()]
    asked = {name for name in line if name.startswith("comm/up_bytes/")}
    assert asked == {"comm/up_bytes/oneround_noisy_sums"}
    assert recall(result) > 0.5
    drowned = launch_in(tmp_path, *words, "data.n_max=100", "data.imbalance_factor=5", "strategy.oneround.epsilon=1")
    assert recall(drowned) < recall(result)


def test_an_encoder_and_random_features_are_a_models_features(tmp_path):
    own = tuple(word for word in ALONE if word != "model=logistic")
    for words in (("model.encoder={name: random_conv}",), ("model.encoder={name: random_features, activation: relu}",)):
        result = launch_in(tmp_path, *own, "model=encoded", *words, "strategy.oneround.shrinkage=0.5")
        assert recall(result) > 0.6
        model = fedimb.load_model(result.folder)
        assert model.predict(np.ones((3, *model.input_shape), np.uint8)).scores.shape == (3, 10)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=mlp",), "features .* are random until it is trained"),
        (("strategy.oneround.head=qda",), "set model.head=quadratic"),
        (("model.head=cosine",), "gives a linear head, and this model's is CosineHead"),
        (("clients.count=1", "partition=iid"), "secure=true hides nothing with one client"),
        (("strategy=[oneround,active]",), "another method has no effect"),
        (("calibration=la_post",), "double correction"),
        (("strategy.oneround.head=fedcof",), "fedcof reads each client's class means"),
        (("strategy.oneround.head=ncm", "strategy.oneround.prior=data"), "no scale"),
        (("strategy.oneround.shrinkage=1.5",), "shrinkage"),
        (("strategy.oneround.shrinkage=best",), "shrinkage"),
        (("strategy.oneround.prior=deployment",), "belong together"),
        (("strategy.oneround.prior=deployment", "strategy.oneround.prevalence=[1,2]"), "2 shares for 10 classes"),
        (("strategy.oneround.epsilon=1", "strategy.oneround.shrinkage=loo"), "does not cover"),
        (("strategy.oneround.epsilon=1", "strategy.oneround.head=qda", "model.head=quadratic"), "sends more sums"),
        (("strategy.oneround.min_count=0",), "min_count"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message) as caught:
        launch_in(tmp_path, *ALONE, *words)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_the_plan_lists_only_what_the_settings_send():
    sizes = Sizes(classes=10, domains=4, features=64, parameters=650, weight_bytes=2600, buffer_bytes=0)

    def listed(*words):
        config = validate(compose([*ALONE, "prior.provenance=none", *words]))
        rows = outbound_records(config, sizes, 1)
        own = {row.record: row for row in rows if row.message.startswith("query.oneround")}
        return own, {name for name in message_counts(config, 1) if "oneround" in name}

    rows, asked = listed()
    masked = {"query.oneround_masked_counts", "query.oneround_masked_sums", "query.oneround_masked_held_out"}
    assert asked == masked
    assert rows.keys() == {"x.oneround_counts", "x.oneround_sums", "x.oneround_second", "x.oneround_held_out"}
    assert all("masked between sites" in row.protection and not row.refusable for row in rows.values())
    assert rows["x.oneround_second"].most_bytes == 8 * 64 * 65 // 2
    rows, asked = listed("strategy.oneround.head=ncm", "strategy.oneround.secure=false")
    assert asked == {"query.oneround_counts", "query.oneround_sums"}
    assert rows.keys() == {"x.oneround_counts", "x.oneround_sums"}
    assert all(row.refusable for row in rows.values())
    assert listed("strategy.oneround.epsilon=2")[1] == {"query.oneround_noisy_sums"}


def test_a_plan_of_two_sites_refuses_masked_sums_of_a_method():
    config = validate(compose([*ALONE, "prior.provenance=none"]))
    assert _masked(config) == "strategy 'oneround', as it is set, sends masked sums and"
    assert _masked(validate(compose([*ALONE, "prior.provenance=none", "strategy.oneround.secure=false"]))) is None


def test_what_auto_means():
    assert OneRoundSettings().resolved_shrinkage == "loo"
    assert OneRoundSettings(use="init").resolved_prior == "data"
    assert OneRoundSettings(head="ridge").fields == ("weighted",)
    assert OneRoundSettings(head="ridge", prior="data").fields == ("second",)
    contract = registry.build("contract", "oneround")
    assert contract.sends("oneround_masked_sums", {})
    assert not contract.sends("oneround_sums", {})


@pytest.mark.parametrize(("head", "min_count"), [("lda", 1), ("ncm", 1), ("lda", 35)])
def test_rows_in_one_place_give_the_head_of_the_run(tmp_path, alone, head, min_count):
    """`head_of` has the bits of the run's model file; at 35 rows two classes fall below the floor."""
    more = (f"strategy.oneround.head={head}", f"strategy.oneround.min_count={min_count}")
    result = alone if (head, min_count) == ("lda", 1) else launch_in(tmp_path, *ALONE, *more, "data.n_max=60")
    federation = read_federation(RunFolder.open(result.folder))
    rows = np.concatenate(list(federation.train))
    x, y = (part.numpy() for part in to_tensors(federation.store, rows, federation.scaling))
    scores = head_of(x.reshape(len(x), -1).astype(np.float64), y, federation.n_classes, head, min_count)
    known, made = np.isfinite(scores.bias), weights(result)
    assert known.all() == (min_count == 1)
    centred = scores.weight - known[:, None] * scores.weight[known].mean(axis=0)
    np.testing.assert_array_equal(made["head.weight"], centred.astype(np.float32))
    own = (scores.bias[known] - scores.bias[known].mean()).astype(np.float32)
    np.testing.assert_array_equal(made["head.bias"][known], own)
