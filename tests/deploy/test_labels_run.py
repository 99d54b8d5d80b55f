"""Hospitals that annotate different classes: as the simulated run, and what a plan of them may not say is refused."""

from pathlib import Path

import numpy as np
import pytest
from deployed import assert_same, small_study
from loopback import Loopback
from study_plans import plan_of, run_config

from fedimb.deploy.coordinator.plan_checks import check_parts
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.site.approvals import receive_plan
from fedimb.errors import ConfigError
from fedimb.rundir.result import RunResult

SITES = {"linz": 60, "va": 75}
AT_SITES = ("data.test={name: none}", "data.validation=0.2", "clients.count=2")


@pytest.mark.slow
@pytest.mark.parametrize(("unknown", "loss"), [("masked", "ce"), ("coarse", "partial_ce")])
def test_sites_that_declare_what_they_annotate_give_the_simulated_model(
    tmp_path: Path, unknown: str, loss: str
) -> None:
    words = ("data.labels.annotated={linz: [ill]}", f"data.labels.unknown={unknown}", f"loss={loss}", "tracking=none")
    study = small_study(tmp_path, SITES, *words, "calibration=[none,la_post]")
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    folder = study.new()
    serve(folder.path, Loopback(study.homes.values()))
    deployed, simulated = RunResult.read(folder.path), study.simulated(tmp_path / "simulated")
    assert_same(deployed, simulated)
    np.testing.assert_allclose(deployed.prior_counts, simulated.prior_counts)
    ill, well = (np.array([12, 48]) * 3 // 4).tolist()  # linz, without its validation rows
    va = np.array([15, 60]) - np.array([4, 15])
    expected = np.array([ill + va[0], va[1]], float)
    if unknown == "coarse":  # over the sites that annotate it, of 60 and 75 rows
        expected[1] /= 75 / 135
    np.testing.assert_allclose(deployed.prior_counts, expected)
    assert well == 36
    rows = deployed.rows[0].confusion.sum(axis=1).tolist()
    assert rows == [3 + 4, 15]  # validation rows of a class that their site does not annotate are not scored


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data.labels.annotated={wien: [gesund]}"], "there is no client or site 'wien'; give one of linz, va"),
        (["data.labels.annotated={va: [sick]}"], "data.labels.annotated.va: no class 'sick'"),
        (
            ["data.labels.annotated={va: [gesund]}", "data.labels.unknown=coarse"],
            "loss 'ce' cannot take labels that are sets of classes",
        ),
    ],
)
def test_what_no_site_could_do_is_refused_of_the_plan(words, says):
    config = run_config(*AT_SITES, *words)
    with pytest.raises(ConfigError, match=says):
        check_parts(plan_of(config), config)


def test_real_sites_do_not_draw_what_they_annotate():
    with pytest.raises(ConfigError, match=r"real sites declare it: set data\.labels\.annotated"):
        plan_of(run_config(*AT_SITES, "partition=annotated_subsets"))
