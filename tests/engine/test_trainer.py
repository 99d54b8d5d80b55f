"""Which trainer a run gets, and that the choice changes nothing but rounding."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_runs import config, launch_in

from fedimb.engine.trainer import resolve_trainer
from fedimb.errors import ConfigError
from fedimb.rundir.folder import RunFolder


def resolved(*overrides, clients=10, shape=(64,)):
    return resolve_trainer(config("engine=inline", *overrides), 10, shape, clients).engine["trainer"]


def test_auto_follows_from_configuration_and_data_alone():
    assert resolved() == "stacked"
    assert resolved("aggregator=fedprox") == "stacked"
    assert resolved(clients=3) == "loop"
    assert resolved("model.hidden=[400]", shape=(784,)) == "loop"
    assert resolved("aggregator=scaffold") == "loop"
    assert resolved("local.augmentation=[{name: noise, std: 0.1}]") == "loop"
    assert resolved("model=cnn4conv", "model.width=8", shape=(8, 8)) == "loop"
    assert resolved("model=cnn4conv", "model.width=8", "engine.trainer=stacked", shape=(8, 8)) == "stacked"
    assert resolved("engine.trainer=loop") == "loop"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine.trainer=stakced"], "give loop, stacked or auto.*'stacked'"),
        (["engine.trainer=stacked", "aggregator=scaffold"], "the objective 'control_variate' is not stackable"),
        (["engine.trainer=stacked", "model=cnn4conv", "model.norm=batch"], "BatchNorm.*use engine.trainer=loop"),
        (["engine.trainer=stacked", "local.augmentation=[{name: noise, std: 0.1}]"], "local.augmentation"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        resolved(*overrides, shape=(8, 8))


def test_the_engine_flower_has_no_trainer():
    assert "trainer" not in resolve_trainer(config("engine=flower"), 10, (64,), 10).engine


def test_both_trainers_agree_and_the_choice_is_kept_with_the_run(tmp_path):
    weights, recalls = [], []
    for trainer in ("loop", "stacked", "auto"):
        result = launch_in(
            tmp_path / trainer, "engine=inline", f"engine.trainer={trainer}", "loss=fedlc", "data.validation=0.2",
            "data.imbalance_factor=4", "aggregator=fedprox", "rounds=2",
        )  # fmt: skip
        weights.append(load_file(result.folder / "artifacts" / "model" / "model.safetensors"))
        recalls.append(result.rows[0].final)
        kept = (result.folder / "config.json").read_text()
        assert f'"trainer":"{"loop" if trainer == "loop" else "stacked"}"' in kept
        assert RunFolder(result.folder).metrics()[-1]["metrics"]["train/steps"] > 0
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=2e-5)
        np.testing.assert_array_equal(weights[1][name], weights[2][name])
    assert recalls[0] == pytest.approx(recalls[1], abs=0.01, nan_ok=True)
    assert recalls[1] == recalls[2]


def test_stacked_training_is_what_answers_find(tmp_path, monkeypatch):
    from fedimb.clientapp.local_training import LocalTraining

    def never(self, prepared):
        raise AssertionError("trained alone")

    monkeypatch.setattr(LocalTraining, "train", never)
    result = launch_in(tmp_path, "engine=inline", "engine.trainer=stacked", "rounds=1")
    assert result.rows[0].final["accuracy"] > 0


def test_a_device_that_is_not_there_is_refused_with_the_remedy(monkeypatch):
    import torch

    from fedimb.config.parts import device_of

    assert device_of({"name": "inline"}) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of({"device": "auto"}) == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"engine\.device=cuda: torch finds no GPU here.*engine\.device=cpu"):
        device_of({"device": "cuda"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of({"device": "auto"}) == torch.device("cuda")
    with pytest.raises(ConfigError, match=r"engine\.device=gpu: give cpu, cuda or auto"):
        config("engine=inline", "engine.device=gpu")


def test_a_stack_that_fails_is_trained_client_by_client_and_the_culprit_named(tmp_path, monkeypatch, caplog):
    from fedimb.clientapp.local_training import LocalTraining
    from fedimb.training.losses.ce import CrossEntropy

    class Sick(CrossEntropy):
        def rows(self, logits, labels):
            raise ZeroDivisionError("stacked")

        def forward(self, logits, labels):
            raise ZeroDivisionError("alone")

    original = LocalTraining.base_spec

    def sick(self, context):
        spec = original(self, context)
        return spec.change(loss=Sick()) if context.client == 2 else spec

    monkeypatch.setattr(LocalTraining, "base_spec", sick)
    overrides = ("engine=inline", "engine.trainer=stacked", "data.imbalance_factor=1", "rounds=1")
    result = launch_in(tmp_path, *overrides)
    assert "round 1: stacked training failed (stacked); trained one by one" in caplog.text
    assert "no usable reply of client 2: client 2, round 1, train, in local step 1 of" in caplog.text
    assert RunFolder(result.folder).metrics()[-1]["metrics"]["data/replies"] == 4
