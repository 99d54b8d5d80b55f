"""The method that trains nothing is found as an installed package is, and nothing is trained."""

import numpy as np
import pytest
import torch

from fedimb import registry
from fedimb.bench.bare import run_bare
from fedimb.bench.noop import NAME, write_package
from fedimb.config.compose import compose
from fedimb.config.parts import build_model
from fedimb.config.validate import validate
from fedimb.errors import ConfigError
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.launch import launch

WORDS = [
    f"strategy={NAME}",
    "data=synthetic_table",
    "data.source.rows=200",
    "data.imbalance_factor=1",
    "clients.count=3",
    "rounds=2",
    "engine=inline",
    "tracking=none",
    "evaluation.bootstrap=0",
]


def test_weights_come_back_as_they_went_out(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(write_package(tmp_path / "packages")))
    with registry.isolated():
        config = validate(compose([*WORDS, f"output_dir={tmp_path}"]))
        result = launch(config)
        bare = run_bare(config)
        start = build_model(config, 5, (41,))
    lines = RunFolder.open(result.folder).metrics()
    assert [line["metrics"]["train/steps"] for line in lines] == [0.0, 0.0]
    assert lines[-1]["metrics"]["comm/up_bytes/train"] > 3 * sum(p.nbytes for p in start.parameters())
    for weights in (bare.weights, {k.removeprefix("classifier."): v for k, v in result.model.state_dict().items()}):
        for name, parameter in start.named_parameters():
            assert torch.allclose(weights[name], parameter, rtol=0, atol=1e-7), name
    assert bare.macro_recall == pytest.approx(result.rows[0].final["macro_recall"])
    assert bare.rows == [0, 0]
    assert np.isfinite(bare.macro_recall)


def test_it_is_no_part_of_fedimb():
    with pytest.raises(ConfigError, match=f"no strategy '{NAME}'"):
        compose(WORDS)
