"""A deployed run whose counts and confusion matrices leave under masks, and whose updates leave with noise."""

import json

import numpy as np
import pytest
from deployed import assert_same, small_study, weights
from loopback import Loopback

from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.site.approvals import receive_plan
from fedimb.errors import RunFailed
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult

SITES = {"linz": 60, "st-anna": 90, "va": 75}


def deployed(study, folder, grid=None):
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    serve(folder.path, grid or Loopback(study.homes.values()))
    return RunResult.read(folder.path)


@pytest.mark.slow
def test_masks_change_no_figure_and_hide_each_sites(tmp_path):
    words = ("prior.provenance=secure_sum", "evaluation.secure=true", "calibration=[none,la_post]", "tracking=none")
    study = small_study(tmp_path, SITES, *words)
    folder, grid = study.new(), Loopback(study.homes.values())
    result = deployed(study, folder, grid)
    assert_same(result, study.simulated(tmp_path / "simulated"), 1e-6)
    asked = {kind for _, kind in grid.asked}
    assert {"query.masked_counts", "query.masked_scores"} <= asked
    assert not asked & {"query.class_counts", "query.scored"}
    for site in SITES:
        keys = [record["key"] for m in study.messages(site, folder.path.name) for record in m["records"]]
        assert "x.confusion" not in keys
    logged = {key for line in RunFolder(folder.path).metrics() for key in line["metrics"]}
    assert not [key for key in logged if key.startswith(("client/", "test/domain/", "test/worst_domain"))]
    digests = {
        line["facts"]["sha256"]
        for home in study.homes.values()
        for line in map(json.loads, home.file("audit.jsonl").read_text().splitlines())
        if line["kind"] == "keys of other sites"
    }
    assert len(digests) == 1


@pytest.mark.slow
def test_a_run_that_is_resumed_sums_with_the_keys_it_began_with(tmp_path):
    words = ("prior.provenance=secure_sum", "evaluation.secure=true", "calibration=[none,la_post]", "tracking=none")
    study = small_study(tmp_path, SITES, *words)
    folder, rounds = study.new(), []

    def lost_in_round_2(site, message):
        rounds.extend([message] * (message.metadata.message_type == "train"))
        return 1 if len(rounds) > len(SITES) else None

    with pytest.raises(RunFailed, match="round 2: only 0 of 3"):
        deployed(study, folder, Loopback(study.homes.values(), 1, lost_in_round_2))
    grid = Loopback(study.homes.values(), 2)
    assert_same(deployed(study, folder, grid), study.simulated(tmp_path / "simulated"), 1e-6)
    assert "query.masked_counts" not in {kind for _, kind in grid.asked}  # the sum is known
    assert "query.masked_scores" in {kind for _, kind in grid.asked}


@pytest.mark.slow
def test_noise_at_hospitals_is_not_what_the_runs_seed_would_draw(tmp_path):
    words = ("privacy.clip=0.05", "privacy.noise=1.0", "aggregation_weight=uniform", "tracking=none")
    study = small_study(tmp_path, SITES, *words)
    result, simulated = deployed(study, study.new()), study.simulated(tmp_path / "simulated")
    assert result.privacy == simulated.privacy
    mine, theirs = weights(result), weights(simulated)
    drawn = np.concatenate([(mine[name] - theirs[name]).ravel() for name in mine])
    assert np.abs(drawn).max() > 1e-3
    protections = {row.protection for row in study.plan.leaves if row.record == "arrays"}
    assert protections == {
        "encrypted on its way; the coordinator reads this site's own update, cut to a norm of 0.05 and with its share "
        "of noise (1 x 0.05)"
    }
