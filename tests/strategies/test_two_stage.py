"""Two-stage training: the first stage is FedAvg's, in the second only the head moves, on class-balanced batches."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_runs import launch_in

from fedimb.clients.two_stage import TwoStageClient
from fedimb.contracts.two_stage import STAGE
from fedimb.errors import ConfigError

WORDS = ("engine=inline", "model=mlp", "model.hidden=[8]")


def test_the_first_stage_is_fedavgs_and_in_the_second_only_the_head_moves(tmp_path):
    found = {}
    for name, words in (("plain", ["strategy=plain", "rounds=3"]), ("two", ["strategy=two_stage", "rounds=4"])):
        result = launch_in(tmp_path, *WORDS, *words)
        found[name] = load_file(result.folder / "artifacts" / "model" / "model.safetensors")
        found[name, "steps"] = result.steps
    for name, value in found["plain"].items():
        assert np.array_equal(value, found["two"][name]) == (not name.startswith("head."))
    assert found["two", "steps"] * 3 == found["plain", "steps"] * 4


def test_in_the_second_stage_a_rare_class_is_drawn_as_often():
    context = SimpleNamespace(content={STAGE: None})
    spec = SimpleNamespace(steps=3, objectives=(), change=lambda **changes: changes)
    sampler = TwoStageClient().train_spec(spec, context)["sampler"]
    y = torch.tensor([0] * 950 + [1] * 50)
    drawn = y[sampler.epoch(y, torch.Generator().manual_seed(0))]
    assert 0.45 < drawn.double().mean() < 0.55


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rounds=1"], "needs a round for each stage"),
        (["calibration=la_post"], "double correction"),
        (["loss=balanced_softmax"], "works with loss ce only"),
        (["aggregator=fedavgm"], "'fedavgm' goes on moving it at the server; use aggregator=fedavg"),
        (["aggregator=feddyn"], "'feddyn' goes on moving it at the server; use aggregator=fedavg"),
        (
            ["privacy.clip=1", "privacy.noise=1", "aggregation_weight=uniform"],
            "would be added to it; use privacy.noise=0",
        ),
    ],
)
def test_what_has_no_two_stages_is_refused(tmp_path, words, says):
    with pytest.raises(ConfigError, match=says):
        launch_in(tmp_path, *WORDS, "strategy=two_stage", *words)


def test_scores_are_means_over_the_second_stage_alone(tmp_path):
    result = launch_in(tmp_path, *WORDS, "strategy=two_stage", "rounds=4", "strategy.two_stage.first=0.75")
    assert result.metrics["macro_recall"] == result.rows[0].final["macro_recall"]  # one round of it, where last_k is 5
