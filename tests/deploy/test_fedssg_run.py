"""FedSSG at hospitals: the hospital is the device, and a run ends as the simulated one once every release is given."""

import numpy as np
import pytest
from deployed import Study, assert_same, small_study
from fedssg_runs import report_of
from loopback import Loopback

from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.site.approvals import receive_plan
from fedimb.deploy.site.inbox import decide_item, inbox_items
from fedimb.errors import RunWaiting
from fedimb.rundir.result import RunResult

SITES = {"linz": 400, "st-anna": 500}
WORDS = (
    "strategy=fedssg", "strategy.fedssg.training={steps: 5}", "strategy.fedssg.rounds=2",
    "strategy.fedssg.local_steps=3", "strategy.fedssg.pretrain=0", "strategy.fedssg.screen=false", "rounds=1",
    "strategy.fedssg.audit={min_count: 5, power: 0.01, copied: 0.99, draws: 2, bootstrap: 5}",
)  # fmt: skip


@pytest.fixture
def agreed(tmp_path):
    """A small study with FedSSG from a source, approved by all sites, which share synthetic samples."""

    def study_of(source: str) -> Study:
        study = small_study(tmp_path, SITES, "tracking=none", *WORDS, f"strategy.fedssg.source={source}")
        for home in study.homes.values():
            settings = home.file("node.yaml")
            settings.write_text(settings.read_text() + "\nsharing: {individual: true}\n")
            receive_plan(home, study.plan.to_json())
        study.approve()
        return study

    return study_of


@pytest.mark.parametrize(("source", "asked"), [("fed_diffusion", "fedssg_teach"), ("client_generators", "fedssg_make")])
def test_a_deployed_run_ends_as_the_simulated_one(agreed, tmp_path, source, asked):
    study = agreed(source)
    folder, grid = study.new(), Loopback(study.homes.values(), 1)
    with pytest.raises(
        RunWaiting, match=r"linz \(release\); st-anna \(release\)\n  continue with: fedimb deploy run --resume"
    ):
        serve(folder.path, grid)
    assert f"query.{asked}" in {kind for _, kind in grid.asked}
    for home in study.homes.values():
        for item in inbox_items(home):
            decide_item(home, item.id, "approved", "Dr. Test")
    serve(folder.path, Loopback(study.homes.values(), 2))
    result, simulated = RunResult.read(folder.path), study.simulated(tmp_path / "simulated")
    assert_same(result, simulated)
    report = report_of(result)
    real = np.array(report["real"])
    assert real.shape == (2, 2, 2)
    assert not real[0, :, 1].any()  # linz has rows of one device: linz
    assert not real[1, :, 0].any()
    for key in ("real", "wanted", "taken"):
        assert report[key] == report_of(simulated)[key]


def test_the_plan_says_how_much_counts_by_hospital_are(agreed):
    rows = {(row.message, row.record): row for row in agreed("fed_diffusion").plan.leaves}
    counts, taught = rows["query.fedssg_coverage", "x.coverage"], rows["query.fedssg_teach", "x.taught"]
    assert (counts.shape, counts.most_bytes) == ("C x D", 2 * 2 * 4)
    assert (taught.shape, taught.most_bytes) == ("C + D", (2 + 2) * 8)
    assert taught.often == "once in each round of the generator (strategy.fedssg.rounds) (at most 2 in a run)"
