"""What a simulation refuses before its first round: refused of a plan, and of a run under it, before a site is asked"""

import pytest
from coordinator import make_deployment, make_node
from deployed import small_study
from ill_or_well import write_table
from loopback import Loopback
from study_plans import plan_of, run_config

from fedimb.deploy.coordinator.plan_checks import check_parts
from fedimb.deploy.coordinator.serve import JoinedSite, _check_validation_rows, serve
from fedimb.deploy.coordinator.sites import add_site, planned_keys
from fedimb.deploy.coordinator.submit import create_run
from fedimb.deploy.registered_data.datasets import register_data
from fedimb.deploy.site.approvals import receive_plan
from fedimb.errors import ConfigError, DataError, RunFailed

AT_SITES = ("data.test={name: none}", "data.validation=0.2", "clients.count=3")
FAIRFAL = ("strategy=fairfal", "strategy.fairfal.cycles=2", "rounds=4")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data.test={name: stratified, fraction: 0.2}"], "name: stratified} does not work in a deployment"),
        (["data.validation=0"], "set e.g. data.validation=0.2"),
        (["prior.provenance=secure_sum", "loss=balanced_softmax", *FAIRFAL], "'fairfal' sends them in the clear"),
        ([*FAIRFAL, "rounds=5"], "cycles=2 does not divide rounds=5"),
        (["aggregator=fedgrab", "loss=bce", "aggregator.tail=30"], r"tail=30, but there are \d+ classes"),
        (["aggregator=class_aware_median", "model=mlp", "model.head=cosine"], "reads the trained bias"),
        (["strategy=fedssg"], "'fedssg' as configured needs rows at the server"),
        (["strategy=[plain,fedssg]"], "'fedssg' as configured needs rows at the server"),
        (["evaluation.secure=true", "clients.count=2"], "secure=true needs at least 3 sites"),
        (["prior.provenance=secure_sum", "loss=balanced_softmax", "clients.count=1"], "needs at least 3 sites"),
        (["prior={provenance: dp_sum, clip: 2}", "loss=balanced_softmax", "clients.count=2"], "needs at least 3 sites"),
    ],
)
def test_what_cannot_work_at_any_site(words, says):
    config = run_config(*AT_SITES, *words)
    with pytest.raises(ConfigError, match=says):
        check_parts(plan_of(config), config)


@pytest.mark.parametrize(
    "words",
    [
        [],
        FAIRFAL,
        ["strategy=fedssg", "strategy.fedssg.source=client_generators", "strategy.fedssg.pretrain=0"],
        ["prior.provenance=secure_sum", "evaluation.secure=true", "calibration=[none,la_post]"],
        ["prior={provenance: dp_sum, clip: 2}", "loss=balanced_softmax"],  # sites know whether rows name patients
        ["privacy={clip: 1, noise: 1}", "aggregation_weight=uniform", "model=mlp"],
    ],
)
def test_what_works(words):
    config = run_config(*AT_SITES, *words)
    check_parts(plan_of(config), config)


@pytest.mark.parametrize("name", ["smote", "smote_nc", "enn"])
def test_a_resampler_is_tried_on_rows_as_long_as_the_plans(name):
    config = run_config(*AT_SITES, "model=mlp", f"resampler={name}")
    check_parts(plan_of(config, input_shape=[13]), config)  # which columns are categories, only the sites know
    with pytest.raises(ConfigError, match="give embeddings"):
        check_parts(plan_of(config, input_shape=[1, 8, 8]), config)


def test_a_resampler_that_a_sites_columns_are_not_for(tmp_path, caplog):
    study = small_study(tmp_path, {"linz": 40, "st-anna": 40, "va": 50}, "resampler=smote_nc", "tracking=none")
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    with (
        caplog.at_level("WARNING"),
        pytest.raises(RunFailed, match=r"a part of the plan cannot work with this site's columns.*in the node's log"),
    ):
        serve(study.new().path, Loopback(study.homes.values()))
    assert "these data have none; use resampler=smote" in caplog.text


def test_statistics_that_would_leave_without_noise():
    noise = ("privacy={clip: 1, noise: 1}", "aggregation_weight=uniform")
    config = run_config(*AT_SITES, "model=cnn4conv", "model.norm=batch", *noise)
    with pytest.raises(ConfigError, match=r"set model\.norm=group"):
        check_parts(plan_of(config, input_shape=[1, 8, 8]), config)


def test_a_run_that_cannot_work_leaves_no_folder(tmp_path):
    deployment = make_deployment(tmp_path / "heart")
    for site in ("linz", "st-anna", "va"):
        add_site(deployment, make_node(deployment, tmp_path / site))
    who = {"coordinator": deployment.signing_key(), "sites": planned_keys(deployment)}
    plan = plan_of(run_config(*AT_SITES, *FAIRFAL), **who)
    with pytest.raises(ConfigError, match="does not divide rounds=5"):
        create_run(deployment, plan, ["rounds=5"], 1, 1)
    assert not deployment.file("runs", "default").exists()
    assert create_run(deployment, plan, ["rounds=6"], 1, 1).status() == "new"


def test_rows_that_name_no_patient_where_the_plan_protects_patients(tmp_path):
    words = ("prior={provenance: dp_sum, clip: 2}", "loss=balanced_softmax", "tracking=none")
    study = small_study(tmp_path, {"linz": 40, "st-anna": 40, "va": 50}, *words)
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    with pytest.raises(RunFailed, match=r"linz: prior\.clip=2 protects patients, but the data set does not name them"):
        serve(study.new().path, Loopback(study.homes.values()))


def test_sites_that_all_hold_out_no_row_do_not_train_a_run_that_nothing_scores(tmp_path):
    study = small_study(tmp_path, {"linz": 60, "va": 75}, "data.validation=0.05", "tracking=none")
    for site, home in study.homes.items():
        receive_plan(home, study.plan.to_json())
        file = write_table(tmp_path / f"{site}.csv", 10, 1)  # fewer rows than those that the plan was drafted with
        register_data(home, str(file), "heads", ["heads"], like=str(tmp_path / "group.yaml"))
    study.approve()
    folder = study.new()
    said = r"data\.validation=0\.05 holds out no row of any of the 2 sites, so nothing would be scored"
    with pytest.raises(DataError, match=said):
        serve(folder.path, Loopback(study.homes.values()))
    assert folder.status() == "failed"
    assert folder.metrics() == []  # before the first round


@pytest.mark.parametrize(
    ("words", "who"),
    [([], "2 sites"), (["clients.count=4", "clients.regions=[2,2]", "clients.min_members=2"], "2 regions")],
)
def test_one_site_or_region_with_validation_rows_is_enough(words, who):
    def joined(*validation):
        return [JoinedSite(9, n, "v", 1.0, None, "", "") for n in validation]

    config = run_config(*AT_SITES, *words)
    _check_validation_rows(config, joined(0, 1))
    with pytest.raises(DataError, match=f"of any of the {who}, so"):
        _check_validation_rows(config, joined(0, 0))
