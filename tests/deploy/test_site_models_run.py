"""Hospitals with networks of their own, and with heads that stay: as the simulated run, and nothing else leaves."""

from pathlib import Path

import numpy as np
import pytest
from deployed import small_study
from loopback import Loopback
from study_plans import plan_of, run_config

from fedimb.deploy.coordinator.plan_checks import check_parts
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.coordinator.traffic import traffic_of
from fedimb.deploy.site.approvals import receive_plan
from fedimb.deploy.study_plan.outbound_records import sizes_of
from fedimb.errors import ConfigError
from fedimb.records import load_arrays
from fedimb.rundir.result import RunResult

SITES = {"linz": 60, "va": 75}
AT_SITES = ("data.test={name: none}", "data.validation=0.2", "clients.count=2")
OTHER = "clients.models={kinds: {other: {name: mlp, hidden: [6]}}, at: {va: other}}"
PRIVATE = "clients.private=[head]"


@pytest.mark.slow
@pytest.mark.parametrize("words", [[OTHER], [OTHER, PRIVATE]], ids=["networks", "private"])
def test_sites_with_models_of_their_own_give_the_simulated_result(tmp_path: Path, words: list[str]) -> None:
    study = small_study(tmp_path, SITES, *words, "model=mlp", "model.hidden=[8]", "tracking=none")
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    folder = study.new()
    serve(folder.path, Loopback(study.homes.values()))
    deployed, simulated = RunResult.read(folder.path), study.simulated(tmp_path / "simulated")
    np.testing.assert_array_equal(deployed.confusion, simulated.confusion)
    one, two = (load_arrays(result.folder / "checkpoint.safetensors")[0] for result in (deployed, simulated))
    weights = sorted(name for name in two if name.startswith("model/"))
    assert weights == sorted(name for name in one if name.startswith("model/"))
    for name in weights:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-6)
    kept_heads = PRIVATE in words
    assert any("head" in name for name in weights) is not kept_heads
    assert (deployed.folder / "artifacts" / "models").exists() is not kept_heads


def test_a_plan_counts_the_largest_network_and_not_what_stays():
    wide = OTHER.replace("[6]", "[64]")
    config = run_config(*AT_SITES, "model=mlp", "model.hidden=[8]", wide)
    alone = run_config(*AT_SITES, "model=mlp", "model.hidden=[64]")
    shape = (2, (5,))
    assert sizes_of(config, *shape) == sizes_of(alone, *shape)
    assert sizes_of(config, *shape).parameters == 5 * 64 + 64 + 64 * 2 + 2
    private = sizes_of(run_config(*AT_SITES, "model=mlp", "model.hidden=[64]", PRIVATE), *shape)
    assert (private.parameters, private.weight_bytes) == (5 * 64 + 64, 4 * (5 * 64 + 64))
    assert traffic_of(plan_of(config), config) == traffic_of(plan_of(alone), alone)


def test_a_plan_that_gives_a_network_to_nobody_is_refused():
    config = run_config(*AT_SITES, OTHER.replace("va:", "wien:"))
    with pytest.raises(ConfigError, match="there is no client or site 'wien'; give one of linz, va"):
        check_parts(plan_of(config), config)
