"""The bare program does the platform's work: same weights, same score, whatever the number of processes."""

import pytest
import torch

from fedimb.bench.bare import run_bare
from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.errors import ConfigError
from fedimb.serverapp.launch import launch

WORDS = [
    "data=synthetic_table",
    "data.source.rows=600",
    "data.source.features=6",
    "data.source.classes=3",
    "data.imbalance_factor=5",
    "clients.count=6",
    "clients.participation=0.5",
    "rounds=2",
    "local.epochs=2",
    "local.batch_size=8",
    "local.lr=0.1",
    "tracking=none",
    "evaluation.bootstrap=0",
]


@pytest.mark.parametrize("more", [["engine.trainer=loop", "local.momentum=0.9"], ["local.weight_decay=0.01"]])
def test_weights_and_score_are_the_platforms(tmp_path, more):
    config = validate(compose([*WORDS, *more, "engine=inline", f"output_dir={tmp_path}"]))
    platform, bare = launch(config), run_bare(config)
    model = {name.removeprefix("classifier."): w for name, w in platform.model.state_dict().items()}
    assert bare.weights.keys() <= model.keys()
    for name, weight in bare.weights.items():
        assert torch.allclose(model[name], weight, rtol=0, atol=1e-5), name
    assert bare.macro_recall == pytest.approx(platform.rows[0].final["macro_recall"], abs=1e-9)
    assert len(bare.ends) == len(bare.rows) == 2
    assert bare.ends == sorted(bare.ends)


def test_processes_change_nothing_but_rounding():
    config = validate(compose([*WORDS, "clients.participation=1.0"]))
    one, two = run_bare(config), run_bare(config, workers=2)
    assert one.rows == two.rows
    assert min(one.rows) > 0
    for name, weight in one.weights.items():
        assert torch.allclose(two.weights[name], weight, rtol=0, atol=1e-6), name
    start = run_bare(validate(compose([*WORDS, "clients.participation=1.0", "rounds=1"]))).weights
    assert any(not torch.equal(start[name], weight) for name, weight in one.weights.items())  # it does train


@pytest.mark.parametrize(
    "word",
    [
        *("aggregator=fedadam", "loss=balanced_softmax", "local.optimizer=adam", "data.validation=0.2"),
        *("resampler=smote", "aggregator.objectives=[grad_reweight]", "attack=label_flip", "privacy.clip=1.0"),
    ],
)
def test_refuses_what_it_does_not_do(word):
    config = validate(compose([*WORDS, word]))
    with pytest.raises(ConfigError, match="change " + word.partition("=")[0].split(".")[0]):
        run_bare(config)
